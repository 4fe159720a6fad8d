//! Repeated calls that are detected as loops.

use std::future::Future;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use super::{Never, detected, detecting, in_time, next, repeats, watched};
use async_cache::agent::{AgentSession, LoopKind, OnLoop, ToolError};
use async_cache::agent_cache;

#[tokio::test]
async fn the_sixth_identical_call_is_the_alarm_and_does_not_run() {
    static CALLS: AtomicU64 = AtomicU64::new(0);
    #[agent_cache(resource = "repeated", maxsize = 0)]
    async fn repeated(query: &str, page: u64) -> Result<&'static str, Never> {
        next(&CALLS);
        Ok(if query.is_empty() || page > 9 { "nothing" } else { "the same" })
    }

    let session = watched();
    session
        .run(async {
            for _ in 0..5 {
                assert_eq!(repeated("x", 1).await.unwrap(), "the same");
            }
            let detected = detected(repeated("x", 1).await);
            assert_eq!((detected.kind, detected.count, detected.limit), (LoopKind::Repeat, 6, 5));
            assert_eq!((&*detected.call.tool, &*detected.call.arguments), ("repeated", "(\"x\", 1)"));
            assert_eq!(detected.cycle, std::slice::from_ref(&detected.call));
            assert_eq!(
                detected.to_string(),
                "loop detected (repeat): repeated(\"x\", 1) would be the same call 6 times in a row, with the same result \
                 each time (limit 5); change the arguments, use another tool, or finish with what is known"
            );
            assert_eq!(detected.session_id, session.id());
            repeated("x", 2).await.unwrap();
            repeated("x", 1).await.unwrap();
        })
        .await;
    assert_eq!(CALLS.load(SeqCst), 7);
    assert_eq!(session.metrics().loop_detections, 1);
    assert_eq!(repeated::metrics().loop_detections, 1);
    for _ in 0..20 {
        repeated("x", 1).await.unwrap();
    }
}

#[tokio::test]
async fn hits_count_and_a_b_a_b_is_the_alarm_after_three_rounds() {
    #[agent_cache(resource = "a and b")]
    async fn a(_x: u64) -> Result<u64, Never> {
        Ok(1)
    }
    #[agent_cache(resource = "a and b", scope = "session")]
    async fn b(_x: u64) -> Result<u64, Never> {
        Ok(2)
    }

    watched()
        .run(async {
            for _ in 0..3 {
                a(1).await.unwrap();
                b(2).await.unwrap();
            }
            let detected = detected(a(1).await);
            assert_eq!((detected.kind, detected.count), (LoopKind::Oscillation, 3));
            let cycle: Vec<_> = detected.cycle.iter().map(ToString::to_string).collect();
            assert_eq!(cycle, ["a(1)", "b(2)"]);
        })
        .await;
}

#[tokio::test]
async fn the_report_is_data_that_a_model_can_read() {
    #[agent_cache(resource = "report")]
    async fn report(_x: u64) -> Result<u64, Never> {
        Ok(1)
    }

    let session =
        AgentSession::builder().id("s").loop_detection(detecting().max_tool_repeats(repeats(1))).open();
    session
        .run(async {
            report(7).await.unwrap();
            let detected = detected(report(7).await);
            let data: serde_json::Value = serde_json::to_value(&detected).unwrap();
            let expected = serde_json::json!({
                "error": "loop_detected", "kind": "repeat", "tool": "report", "arguments": "7", "count": 2, "limit": 1,
                "cycle": [{"tool": "report", "arguments": "7"}], "session_id": "s", "message": detected.to_string(),
            });
            assert_eq!(data, expected);
        })
        .await;
}

fn nested(level: u64) -> std::pin::Pin<Box<dyn Future<Output = Result<u64, ToolError<io::Error>>> + Send>> {
    Box::pin(nest(level))
}

#[agent_cache(resource = "nested")]
async fn nest(level: u64) -> Result<u64, io::Error> {
    nested(level + 1).await.map_err(|error| match error {
        ToolError::Loop(detected) => io::Error::other(detected),
        ToolError::Load(error) => io::Error::other(error.to_string()),
        _ => io::Error::other("short"),
    })
}

#[tokio::test]
async fn the_fifty_first_nested_call_is_the_alarm() {
    let error = in_time(watched().run(nested(1))).await.unwrap_err().to_string();
    assert!(error.contains("nest(51) would be 51 calls of tools deep (limit 50)"), "{error}");
}

#[tokio::test]
async fn another_result_is_progress_unless_results_are_ignored() {
    static CALLS: AtomicU64 = AtomicU64::new(0);
    #[agent_cache(resource = "polled", maxsize = 0)]
    async fn polled() -> Result<u64, Never> {
        Ok(next(&CALLS))
    }

    watched()
        .run(async {
            for _ in 0..30 {
                polled().await.unwrap();
            }
        })
        .await;
    AgentSession::builder()
        .loop_detection(detecting().ignoring_results())
        .open()
        .run(async {
            for _ in 0..5 {
                polled().await.unwrap();
            }
            detected(polled().await);
        })
        .await;
}

#[tokio::test]
async fn a_call_that_keeps_failing_is_the_alarm_and_its_error_is_its_own() {
    #[agent_cache(resource = "failing")]
    async fn failing() -> Result<u64, io::Error> {
        Err(io::Error::other("no"))
    }

    watched()
        .run(async {
            for _ in 0..5 {
                assert_eq!(failing().await.unwrap_err().tool_error().unwrap().to_string(), "no");
            }
            detected(failing().await);
        })
        .await;
}

#[tokio::test]
async fn warn_goes_on_and_short_circuit_returns_what_is_cached_or_an_error() {
    static CALLS: AtomicU64 = AtomicU64::new(0);
    #[agent_cache(resource = "kept")]
    async fn kept() -> Result<u64, Never> {
        Ok(1)
    }
    #[agent_cache(resource = "not kept", maxsize = 0)]
    async fn not_kept() -> Result<u64, Never> {
        next(&CALLS);
        Ok(1)
    }

    let on_loop = |on_loop| AgentSession::builder().loop_detection(detecting().on_loop(on_loop)).open();
    let warned = on_loop(OnLoop::Warn);
    warned
        .run(async {
            for _ in 0..8 {
                not_kept().await.unwrap();
            }
        })
        .await;
    assert_eq!((CALLS.load(SeqCst), warned.metrics().loop_detections), (8, 3));
    on_loop(OnLoop::ShortCircuit)
        .run(async {
            for _ in 0..8 {
                assert_eq!(kept().await.unwrap(), 1);
            }
            for _ in 0..5 {
                not_kept().await.unwrap();
            }
            assert!(matches!(not_kept().await, Err(ToolError::ShortCircuited)));
        })
        .await;
    assert_eq!(CALLS.load(SeqCst), 13);
}

#[tokio::test]
async fn a_session_inside_keeps_the_guard_unless_it_has_its_own() {
    #[agent_cache(resource = "guarded", scope = "session")]
    async fn guarded() -> Result<u64, Never> {
        Ok(1)
    }

    let outer = AgentSession::builder().loop_detection(detecting().max_tool_repeats(repeats(2))).open();
    let inner = AgentSession::builder().open();
    outer
        .run(inner.run(async {
            guarded().await.unwrap();
            guarded().await.unwrap();
            detected(guarded().await);
        }))
        .await;
    assert_eq!((outer.metrics().loop_detections, inner.metrics().loop_detections), (1, 0));
    outer
        .run(watched().run(async {
            for _ in 0..5 {
                guarded().await.unwrap();
            }
            detected(guarded().await);
        }))
        .await;
}

#[tokio::test]
async fn a_call_that_is_warned_of_and_served_is_a_hit() {
    #[agent_cache(resource = "warned of")]
    async fn warned_of() -> Result<u64, Never> {
        Ok(1)
    }

    let session = AgentSession::builder().loop_detection(detecting().on_loop(OnLoop::Warn)).open();
    session
        .run(async {
            for _ in 0..8 {
                warned_of().await.unwrap();
            }
        })
        .await;
    for counted in [session.metrics(), warned_of::metrics()] {
        assert_eq!((counted.hits, counted.misses, counted.loop_detections), (7, 1, 3));
    }
}

#[tokio::test]
async fn calls_inside_of_a_tool_are_compared_with_their_siblings_only() {
    #[agent_cache(resource = "inside", maxsize = 0)]
    async fn inside() -> Result<u64, Never> {
        Ok(1)
    }
    #[agent_cache(resource = "outside")]
    async fn outside(x: u64) -> Result<u64, Never> {
        Ok(x + inside().await.unwrap() + inside().await.unwrap())
    }

    watched()
        .run(async {
            for x in 0..30 {
                outside(x).await.unwrap();
            }
        })
        .await;
}

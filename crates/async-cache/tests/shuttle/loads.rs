//! Single loads: callers that leave, and writes.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use super::{Cache, Origin, Run, cache, call, check, give_up_after};
use async_cache::LoadError;
use shuttle::future::{block_on, spawn};
use shuttle::sync::atomic::Ordering::SeqCst;
use shuttle::thread;

#[test]
fn two_callers_of_one_key_share_one_load() {
    fn scene() {
        let (cache, origin) = (cache(), Arc::new(Origin::default()));
        let other = spawn(call(&cache, &origin));
        let mine = block_on(call(&cache, &origin)).unwrap();
        assert_eq!((mine, block_on(other).unwrap().unwrap()), (0, 0));
        assert_eq!(origin.started.load(SeqCst), 1);
        assert_eq!((cache.get(&1), cache.stats().loads), (Some(0), 1));
    }
    check(scene);
    shuttle::check_dfs(scene, Some(20_000));
}

#[test]
fn a_leader_who_leaves_does_not_take_the_load_from_who_joined() {
    fn scene() {
        let (cache, origin) = (cache(), Arc::new(Origin::default()));
        let mut leader = call(&cache, &origin);
        if leader.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready() {
            return; // the load ended before the caller
        }
        let mut joiner = call(&cache, &origin);
        let polled = joiner.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        let leaves = spawn(give_up_after(leader, 1));
        let value = match polled {
            Poll::Ready(value) => value,
            Poll::Pending => block_on(joiner),
        };
        assert_eq!(value.unwrap(), 0);
        block_on(leaves).unwrap();
        assert_eq!((origin.started.load(SeqCst), origin.rest()), (1, (0, 1)));
    }
    check(scene);
}

/// The last caller leaves, another caller joins, and the load ends: in any order.
#[test]
fn who_joins_a_load_that_is_being_stopped_is_answered_and_no_two_loads_run_at_once() {
    fn scene() {
        let (cache, origin) = (cache(), Arc::new(Origin::default()));
        let leaves = spawn(give_up_after(call(&cache, &origin), 1));
        let leaves_later = spawn(give_up_after(call(&cache, &origin), 2));
        let stays = spawn(call(&cache, &origin));
        assert_eq!(block_on(stays).unwrap().unwrap(), 0);
        block_on(leaves).unwrap();
        block_on(leaves_later).unwrap();
        assert_eq!(origin.rest(), (0, 1));
        assert_eq!(cache.get(&1), Some(0));
    }
    check(scene);
}

#[test]
fn when_all_leave_no_load_is_left() {
    fn scene() {
        let (cache, origin) = (cache(), Arc::new(Origin::default()));
        let callers = [1, 2].map(|polls| spawn(give_up_after(call(&cache, &origin), polls)));
        for caller in callers {
            block_on(caller).unwrap();
        }
        // A load that was being polled is dropped by its polling task, a little later.
        while origin.running.load(SeqCst) > 0 {
            thread::yield_now();
        }
        assert_eq!(block_on(call(&cache, &origin)).unwrap(), 0);
        assert_eq!(origin.peak.load(SeqCst), 1);
    }
    check(scene);
}

/// The load never ends by itself, so it must be stopped: by the last caller to leave, or by the
/// task that was polling it at that moment.
#[test]
fn a_load_that_never_ends_is_dropped_when_all_have_left() {
    fn scene() {
        let (cache, origin) = (cache(), Arc::new(Origin::default()));
        let callers = [1, 2].map(|polls| {
            let (cache, origin) = (cache.clone(), Arc::clone(&origin));
            let endless = move || async move {
                let _run = Run(Arc::clone(&origin));
                origin.running.fetch_add(1, SeqCst);
                std::future::pending().await
            };
            spawn(give_up_after(Box::pin(async move { cache.get_or_load(&1, endless).await }), polls))
        });
        for caller in callers {
            block_on(caller).unwrap();
        }
        // The polling task may be a little later. Until then, a new caller would join the endless
        // load.
        while cache.stats().load_errors < cache.stats().loads {
            thread::yield_now();
        }
        assert_eq!(origin.running.load(SeqCst), 0);
        assert_eq!(block_on(call(&cache, &origin)).unwrap(), 0);
    }
    check(scene);
}

/// Changes the origin, then the cache. From then on no value older than `1` may be served,
/// regardless of loads.
fn nothing_old_after(write: fn(&Cache, usize)) {
    let (cache, origin) = (cache(), Arc::new(Origin::default()));
    let callers = [(); 2].map(|()| spawn(call(&cache, &origin)));
    let quits = spawn(give_up_after(call(&cache, &origin), 2));
    let (written, writing) = (cache.clone(), Arc::clone(&origin));
    let writer = thread::spawn(move || {
        writing.version.store(1, SeqCst);
        write(&written, 1);
        assert_ne!(written.get(&1), Some(0), "stored after it was overtaken");
        assert_eq!(block_on(call(&written, &writing)).unwrap(), 1, "joined a load that was overtaken");
    });
    for caller in callers {
        block_on(caller).unwrap().unwrap();
    }
    block_on(quits).unwrap();
    writer.join().unwrap();
    assert_eq!(cache.get(&1), Some(1), "an older load landed last");
}

#[test]
fn a_load_that_began_before_a_set_never_lands_after_it() {
    check(|| nothing_old_after(|cache, version| cache.set(1, version)));
}

#[test]
fn a_load_that_began_before_a_delete_never_lands_after_it() {
    check(|| nothing_old_after(|cache, _| cache.delete(&1)));
}

#[test]
fn a_load_that_began_before_a_clear_never_lands_after_it() {
    check(|| nothing_old_after(|cache, _| cache.clear()));
}

/// The number of superseded loads in all runs of the scene below.
static SUPERSEDED: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);

/// Two callers whose loads fail with an error of another type, a caller whose load returns an older
/// value, and a caller that cannot use the errors: it is answered by its own load at the latest,
/// and a superseded load answers its own callers and stores nothing.
#[test]
fn a_caller_that_a_load_brought_nothing_supersedes_the_next_one_which_stores_nothing() {
    async fn load_otherwise(cache: Cache, origin: Arc<Origin>, fails: bool) -> Result<usize, LoadError<u8>> {
        let load = move || async move {
            let value = origin.load().await.unwrap();
            if fails { Err(0) } else { Ok(value) }
        };
        cache.get_or_load(&1, load).await
    }
    fn scene() {
        let (cache, origin) = (cache(), Arc::new(Origin::default()));
        let others = [true, true, false].map(|fails| {
            let (cache, origin) = (cache.clone(), Arc::clone(&origin));
            spawn(load_otherwise(cache, origin, fails))
        });
        let own = Arc::new(Origin::default());
        own.version.store(1, SeqCst);
        let mine = block_on(call(&cache, &own)).unwrap();
        let served = cache.get(&1);
        assert_eq!(served, Some(mine), "what was superseded is not stored, and nothing else is superseded");
        for other in others {
            assert!(matches!(block_on(other).unwrap(), Ok(0 | 1) | Err(LoadError::Failed(_))));
        }
        assert_eq!(cache.get(&1), served, "a load that was superseded landed last");
        SUPERSEDED.fetch_add(cache.stats().fenced, std::sync::atomic::Ordering::Relaxed);
        assert_eq!((own.started.load(SeqCst) <= 1, own.running.load(SeqCst)), (true, 0));
    }
    check(scene);
    assert_ne!(SUPERSEDED.load(std::sync::atomic::Ordering::Relaxed), 0, "the scene never came to it");
}

//! Holders of leases that die, or stand still for too long.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use servers::Direction::ToServer;

use crate::support::{
    Origin, cache, connected, each, hears, over, proxy, redis_at, soon, through, timed, wire_key,
};

const NOW: Duration = Duration::ZERO;
const PORT: &str = "ASYNC_CACHE_HOLDER_PORT";

/// Not a test of its own: run and killed by the other tests.
#[test]
#[allow(clippy::print_stdout)]
fn a_child_that_loads_until_it_is_killed() {
    let Ok(port) = std::env::var(PORT) else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let cache = over(redis_at(port.parse().unwrap()));
        let load = || async {
            println!("\nloading");
            tokio::time::sleep(Duration::from_secs(60)).await;
            Err::<String, _>("nobody has killed it")
        };
        cache.get_or_load("key", load).await.unwrap_err();
    });
}

/// A process that holds the lease of `key`.
fn holder(port: u16) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "holders::a_child_that_loads_until_it_is_killed", "--nocapture"]);
    let mut child = command.env(PORT, port.to_string()).stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.map(Result::unwrap).any(|line| line == "loading"), "the child loads");
    child
}

#[test]
fn the_load_of_a_process_that_was_killed_is_taken_over_after_three_seconds() {
    each(async |server| {
        let (one, two, origin) = (cache(&server).await, cache(&server).await, Origin::default());
        let mut child = holder(server.port());
        let waiting = {
            let (one, origin) = (one.clone(), origin.clone());
            tokio::spawn(async move { timed(origin.get(&one, "key", NOW)).await })
        };
        hears(&one).await;
        tokio::time::sleep(Duration::from_millis(300)).await; // the holder lives
        assert_eq!(origin.loads(), 0);
        child.kill().unwrap();
        child.wait().unwrap();
        let ((late, took), (waited, total)) =
            tokio::join!(timed(origin.get(&two, "key", NOW)), async { waiting.await.unwrap() });
        assert_eq!((late.as_str(), waited.as_str(), origin.loads()), ("0", "0", 1));
        assert!(took < Duration::from_millis(3500), "after {took:?}");
        assert!(total < Duration::from_millis(3900), "after {total:?}");
    });
}

#[test]
fn the_load_of_a_process_that_was_killed_is_taken_over_without_news_as_well() {
    each(async |server| {
        let one = connected(redis_at(server.port()).tracking(false)).await;
        let origin = Origin::default();
        let mut child = holder(server.port());
        let waiting = {
            let (one, origin) = (one.clone(), origin.clone());
            tokio::spawn(async move { origin.get(&one, "key", NOW).await })
        };
        tokio::time::sleep(Duration::from_millis(100)).await; // it has seen that the holder lives
        child.kill().unwrap();
        child.wait().unwrap();
        let (value, took) = timed(waiting).await;
        assert_eq!(value.unwrap(), "0");
        assert!(took < Duration::from_millis(3700), "after {took:?}");
    });
}

#[test]
fn a_store_that_comes_after_the_end_of_its_lease_is_refused() {
    each(async |server| {
        let proxy = proxy(&server);
        let lease = Duration::from_millis(300);
        let slow = connected(through(&proxy).lease(lease).timeout(Duration::from_secs(2))).await;
        let (other, origin) = (cache(&server).await, Origin::default());
        let loading = {
            let (slow, origin) = (slow.clone(), origin.clone());
            tokio::spawn(async move { origin.get(&slow, "key", Duration::from_millis(50)).await })
        };
        soon("it loads", || origin.loads() == 1).await;
        // Neither an extension nor the store reaches the server in time.
        proxy.hold(ToServer);
        assert_eq!(loading.await.unwrap(), "0");
        soon("the lease has ended", || wire_key(&server, "key").is_none()).await;
        let (newer, took) = timed(origin.get(&other, "key", NOW)).await;
        assert_eq!(newer, "1");
        assert!(took < Duration::from_millis(500), "after {took:?}");
        hears(&other).await;
        proxy.release(ToServer);
        hears(&slow).await;
        assert_eq!(slow.fetch("key").await.as_deref(), Some("1"));
        assert_eq!(cache(&server).await.fetch("key").await.as_deref(), Some("1"));
    });
}

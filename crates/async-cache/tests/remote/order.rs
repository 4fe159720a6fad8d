//! Answers and news of changes come in the order of the server, however the bytes are delayed and
//! split.

use std::time::Duration;

use servers::Direction::ToClient;

use crate::support::{Origin, cache, connected, each, hears, proxy, shows, soon, through};

const NOW: Duration = Duration::ZERO;

#[test]
fn an_answer_that_is_delayed_past_an_invalidation_is_not_kept() {
    each(async |server| {
        let proxy = proxy(&server);
        let (near, far) = (cache(&server).await, connected(through(&proxy)).await);
        for round in 0..20 {
            let (key, old, new) = (format!("key {round}"), format!("old {round}"), format!("new {round}"));
            near.set(key.clone(), old.clone());
            hears(&near).await;
            // The answer is on its way when the value is replaced.
            proxy.hold(ToClient);
            let asked = {
                let (far, key) = (far.clone(), key.clone());
                tokio::spawn(async move { far.fetch(&key).await })
            };
            tokio::task::block_in_place(|| proxy.wait_until_held(ToClient));
            near.set(key.clone(), new.clone());
            hears(&near).await;
            proxy.release(ToClient);
            let answer = asked.await.unwrap();
            assert!([Some(old), Some(new.clone())].contains(&answer), "{answer:?}");
            hears(&far).await;
            assert!(far.get(&key).is_none_or(|value| value == new), "{:?}", far.get(&key));
            shows(&far, &key, Some(&new)).await;
        }
    });
}

#[test]
fn a_load_whose_lease_is_delayed_past_an_invalidation_is_not_kept() {
    each(async |server| {
        let proxy = proxy(&server);
        let (near, far) = (cache(&server).await, connected(through(&proxy)).await);
        let origin = Origin::default();
        for round in 0..20 {
            let key = format!("key {round}");
            proxy.delay(ToClient, Duration::from_millis(20));
            let before = origin.loads();
            let loading = {
                let (far, origin, key) = (far.clone(), origin.clone(), key.clone());
                tokio::spawn(async move { origin.get(&far, &key, NOW).await })
            };
            soon("it loads", || origin.loads() > before).await;
            near.delete(&key);
            hears(&near).await;
            loading.await.unwrap();
            hears(&far).await;
            // The invalidation came before the store, or after: no value is left in either case.
            assert_eq!(near.fetch(&key).await, None);
            assert_eq!(far.get(&key), None);
            proxy.delay(ToClient, NOW);
        }
    });
}

#[test]
fn everything_works_when_each_byte_comes_alone() {
    each(async |server| {
        let proxy = proxy(&server);
        proxy.split(ToClient);
        proxy.split(servers::Direction::ToServer);
        let (near, far) = (cache(&server).await, connected(through(&proxy)).await);
        let origin = Origin::default();
        assert_eq!(origin.get(&far, "key", NOW).await, "0");
        shows(&near, "key", Some("0")).await;
        near.delete("key");
        hears(&near).await;
        hears(&far).await;
        assert_eq!(far.get("key"), None);
        assert_eq!(origin.get(&far, "key", NOW).await, "1");
    });
}

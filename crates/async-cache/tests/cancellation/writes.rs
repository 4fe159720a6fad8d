//! Writes that overtake a load.

use super::{cache, call, started, waiting};
use crate::stage::{Loads, on_both_runtimes, until};

on_both_runtimes! {
    async fn a_load_that_a_set_overtakes_answers_its_callers_and_stores_nothing() {
        let (cache, loads) = (cache(), Loads::new());
        let leader = waiting(&cache, "key", &loads, Ok(1));
        started(&loads, 1).await;
        cache.set("key".into(), 2);
        assert_eq!(call(&cache, "key", &loads, Ok(3)).await.unwrap(), 2, "a new caller gets what was set");
        loads.let_end(1);
        assert_eq!(leader.await.unwrap(), 1);
        assert_eq!((cache.get("key"), loads.started(), cache.stats().fenced), (Some(2), 1, 1));
    }

    async fn a_load_that_a_delete_overtakes_answers_its_callers_and_stores_nothing() {
        let (cache, loads) = (cache(), Loads::new());
        let leader = waiting(&cache, "key", &loads, Ok(1));
        let joiner = waiting(&cache, "key", &loads, Ok(7));
        started(&loads, 1).await;
        cache.delete("key");
        let next = waiting(&cache, "key", &loads, Ok(2));
        started(&loads, 2).await;
        assert_eq!(loads.running(), 2, "the next one does not wait for the old load");
        loads.let_end(2);
        assert_eq!((leader.await.unwrap(), joiner.await.unwrap(), next.await.unwrap()), (1, 1, 2));
        assert_eq!((cache.get("key"), cache.stats().fenced), (Some(2), 1));
    }

    async fn a_load_that_a_clear_overtakes_answers_its_callers_and_stores_nothing() {
        let (cache, loads) = (cache(), Loads::new());
        let leader = waiting(&cache, "key", &loads, Ok(1));
        let other = waiting(&cache, "other", &loads, Ok(5));
        started(&loads, 2).await;
        cache.clear();
        let next = waiting(&cache, "key", &loads, Ok(2));
        started(&loads, 3).await;
        loads.let_end(3);
        assert_eq!((leader.await.unwrap(), other.await.unwrap(), next.await.unwrap()), (1, 5, 2));
        assert_eq!((cache.get("key"), cache.get("other"), cache.len()), (Some(2), None, 1));
    }

    async fn a_load_that_was_overtaken_and_ends_last_does_not_replace_the_newer_value() {
        let (cache, old, new) = (cache(), Loads::new(), Loads::new());
        let first = waiting(&cache, "key", &old, Ok(1));
        started(&old, 1).await;
        cache.delete("key");
        new.let_end(1);
        assert_eq!(call(&cache, "key", &new, Ok(2)).await.unwrap(), 2);
        old.let_end(1);
        assert_eq!((first.await.unwrap(), cache.get("key")), (1, Some(2)));
    }

    async fn a_load_that_was_overtaken_is_dropped_with_its_last_caller() {
        let (cache, old, new) = (cache(), Loads::new(), Loads::new());
        let first = waiting(&cache, "key", &old, Ok(1));
        started(&old, 1).await;
        cache.delete("key");
        let next = waiting(&cache, "key", &new, Ok(2));
        started(&new, 1).await;
        drop(first);
        until(|| old.running() == 0).await;
        assert_eq!(new.running(), 1, "the newer load is another one");
        new.let_end(1);
        assert_eq!(next.await.unwrap(), 2);
    }

    async fn a_loader_may_write_its_own_key() {
        let cache = cache();
        let inner = cache.clone();
        let load = move || async move {
            inner.set("key".into(), 2);
            Ok::<_, String>(1)
        };
        assert_eq!(cache.get_or_load("key", load).await.unwrap(), 1);
        assert_eq!(cache.get("key"), Some(2), "the loader set it before its own load ended");
    }
}

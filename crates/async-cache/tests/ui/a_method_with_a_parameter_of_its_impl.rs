//! A cache is a static, and a static cannot name a type parameter.
use async_cache::async_lru;
use std::marker::PhantomData;

#[derive(Clone)]
struct Repository<T>(PhantomData<T>);

impl<T: Clone + Send + Sync + Default + 'static> Repository<T> {
    #[async_lru(skip_self)]
    async fn row(&self, _id: u32) -> T {
        T::default()
    }
}

fn main() {}

//! A crate that depends on async-cache under the name `never_cold`, forbids `unsafe` and denies
//! every lint that can be denied: the expansions of the macros must pass.

#![forbid(unsafe_code)]
#![deny(warnings, missing_docs, missing_debug_implementations, unreachable_pub, unused_qualifications)]
#![deny(clippy::all, clippy::pedantic)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use never_cold::{async_lru, async_ttl, invalidates};

/// A public function with a borrowed argument.
///
/// # Errors
/// If the word is empty.
#[async_lru(maxsize = 10)]
pub async fn first_letter(word: &str) -> Result<char, String> {
    word.chars().next().ok_or_else(|| "an empty word".to_owned())
}

/// A public function with several arguments, and a value that is not a `Result`.
#[async_ttl(ttl = "1h 30m", cache_none = false)]
pub async fn position(words: &[String], word: &str, start: usize) -> Option<usize> {
    words.iter().skip(start).position(|other| other == word)
}

/// A shop whose products have prices.
#[derive(Clone, Debug, Default)]
pub struct Shop {
    price: Arc<AtomicU64>,
}

impl Shop {
    /// The name of a product: a function without `self`, with an argument that exists under a
    /// condition.
    #[async_lru(maxsize = 10)]
    pub async fn name(product: u64, #[cfg(test)] suffix: &str, #[cfg(not(test))] suffix: char) -> String {
        format!("{product}{suffix}")
    }

    /// The price of a product.
    #[async_lru(skip_self)]
    pub async fn price(&self, product: u64) -> u64 {
        product + self.price.load(SeqCst)
    }

    /// Changes the price of a product.
    #[invalidates(Self::price_cache(), key = (product))]
    pub async fn set_price(&self, product: u64, price: u64) {
        let _ = product;
        self.price.store(price, SeqCst);
    }

    /// Changes the prices of all products, and reports the result.
    ///
    /// # Errors
    /// If the price is free.
    #[invalidates(Self::price_cache(), clear_all)]
    pub fn set_all_prices(&self, price: u64) -> Result<(), String> {
        if price == 0 {
            return Err("nothing is free".to_owned());
        }
        self.price.store(price, SeqCst);
        Ok(())
    }
}

/// A word has changed its first letter.
#[invalidates(first_letter)]
pub fn change(word: &str) {
    let _ = word;
}

#[cfg(test)]
mod tests {
    use super::{Shop, change, first_letter, position};

    #[tokio::test]
    async fn the_macros_find_a_renamed_dependency() {
        assert_eq!(first_letter("word").await.unwrap(), 'w');
        assert_eq!(first_letter("word").await.unwrap(), 'w');
        assert_eq!(first_letter::metrics().hits, 1);
        change("word");
        assert_eq!(first_letter::metrics().size, 0);

        let words = ["a".to_owned(), "b".to_owned()];
        assert_eq!(position(&words, "b", 0).await, Some(1));
        assert_eq!(position(&words, "c", 0).await, None);
        assert_eq!(position::metrics().size, 1);

        let shop = Shop::default();
        assert_eq!(shop.price(1).await, 1);
        shop.set_price(1, 10).await;
        assert_eq!(shop.price(1).await, 11);
        shop.set_all_prices(20).unwrap();
        assert_eq!(shop.price(1).await, 21);
    }
}

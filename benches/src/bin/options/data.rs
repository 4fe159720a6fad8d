//! The saved data: small similar records, and pages of HTML.

use serde::{Deserialize, Serialize};

#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Record {
    id: u64,
    name: String,
    email: String,
    price: f64,
    tags: Vec<String>,
}

pub(crate) fn record(id: u64) -> Record {
    let mixed = id.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    Record {
        id,
        name: format!("user number {id}"),
        email: format!("user.{:x}@example.com", mixed >> 40),
        price: (mixed % 100_000) as f64 / 100.0,
        tags: vec![format!("tag{}", mixed % 17), "common".to_owned(), "active".to_owned()],
    }
}

/// A page of about 8 KB: repetitive markup, varied text.
pub(crate) fn page(id: u64) -> String {
    const WORDS: [&str; 24] = [
        "cache", "never", "cold", "deploy", "value", "entry", "key", "load", "price", "order", "cart",
        "summer", "winter", "blue", "green", "large", "small", "fast", "slow", "new", "old", "light",
        "heavy", "sale",
    ];
    let mut random = fastrand::Rng::with_seed(id);
    let mut page =
        format!("<!doctype html><html><head><title>Page {id}</title></head><body><ul class=\"list\">");
    for item in 0..40 {
        let text: Vec<&str> = (0..12).map(|_| WORDS[random.usize(..WORDS.len())]).collect();
        let (text, price) = (text.join(" "), random.u32(..100_000));
        page.push_str("<li class=\"item\"><a href=\"/items/");
        for part in [&*id.to_string(), "/", &item.to_string(), "\">", &text, "</a><span class=\"price\">"] {
            page.push_str(part);
        }
        page.push_str(&price.to_string());
        page.push_str("</span></li>\n");
    }
    page + "</ul></body></html>"
}

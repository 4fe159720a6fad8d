//! The options in `#[async_lru(...)]`, `#[async_ttl(...)]` and `#[agent_cache(...)]`.
//!
//! Owns the permitted options and their defaults. Does not know the decorated function.

use proc_macro2::{Span, TokenStream};
use quote::quote;
use syn::ext::IdentExt;
use syn::parse::{ParseStream, Parser};
use syn::spanned::Spanned;
use syn::{Expr, Ident, LitBool, LitStr, Path, Token, Type};

use crate::mistakes::Mistakes;

/// The macro.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum MacroKind {
    Lru,
    Ttl,
    Agent,
}

/// The options as written by the user, with defaults for the others.
pub(crate) struct Options {
    /// `None` means unlimited.
    pub(crate) maxsize: Option<Expr>,
    /// A `Duration`; `None` means never.
    pub(crate) ttl: Option<TtlOption>,
    pub(crate) eviction: EvictionOption,
    pub(crate) backup: Option<Expr>,
    pub(crate) remote: Option<Expr>,
    pub(crate) clock: Option<Expr>,
    pub(crate) key: Option<Key>,
    pub(crate) name: Option<LitStr>,
    /// Whether the return type is a `Result`; `None`: its name decides.
    pub(crate) result: Option<bool>,
    /// The option's name, if `None` must not be stored.
    pub(crate) cache_none: Option<Span>,
    pub(crate) skip_self: Option<Span>,
    /// The option's name, if the function is declared to stand in an `impl` block.
    pub(crate) associated: Option<Span>,
    pub(crate) place: Option<Path>,
    /// The resource that the agent's tool reads.
    pub(crate) resource: Option<LitStr>,
    /// Where the tool's results are kept.
    pub(crate) scope: ScopeOption,
}

/// Where the results of a tool are kept.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum ScopeOption {
    Global,
    Session,
}

pub(crate) enum TtlOption {
    Milliseconds(u64),
    Given(Expr),
}

#[derive(Clone, Copy)]
pub(crate) enum EvictionOption {
    Adaptive,
    Lru,
}

/// The source of the key, if not all arguments.
pub(crate) enum Key {
    /// Some of the arguments.
    Arguments(Vec<Ident>),
    /// An expression, and its type.
    Made(Box<Type>, Expr),
}

const AGENT_WORDS: &str = "`resource`, `scope`, `maxsize`, `ttl`, `eviction`, `backup`, `remote`, `clock`, `name`, `key`, \
     `cache_none`, `crate`";
const WORDS: &str = "`maxsize`, `ttl` (of `async_ttl`), `eviction`, `backup`, `remote`, `clock`, `name`, `key`, `result`, \
                     `cache_none`, `skip_self`, `associated`, `crate`";

impl Options {
    pub(crate) fn parse(kind: MacroKind, attribute: TokenStream) -> syn::Result<Self> {
        let (maxsize, ttl) = match kind {
            MacroKind::Lru => (128_usize, None),
            MacroKind::Ttl => (1024, Some(TtlOption::Milliseconds(60_000))),
            MacroKind::Agent => (1024, None),
        };
        let maxsize = syn::parse_quote!(#maxsize);
        let mut options = Self {
            maxsize: Some(maxsize),
            ttl,
            eviction: EvictionOption::Adaptive,
            backup: None,
            remote: None,
            clock: None,
            key: None,
            name: None,
            result: None,
            cache_none: None,
            skip_self: None,
            associated: None,
            place: None,
            resource: None,
            scope: ScopeOption::Global,
        };
        let all = |input: ParseStream<'_>| {
            let mut mistakes = Mistakes::default();
            let mut seen: Vec<Ident> = Vec::new();
            while !input.is_empty() {
                match options.one(kind, input, &mut seen) {
                    Ok(()) if input.is_empty() || input.peek(Token![,]) => {}
                    Ok(()) => {
                        mistakes.add(input.error("a comma stands between two options"));
                        skip_to_comma(input);
                    }
                    Err(error) => {
                        mistakes.add(error);
                        skip_to_comma(input);
                    }
                }
                let _: Option<Token![,]> = input.parse()?;
            }
            mistakes.none_or_error()
        };
        all.parse2(attribute)?;
        if kind == MacroKind::Agent {
            options.check_agent()?;
        }
        Ok(options)
    }

    /// Whether the function is a tool of an agent.
    pub(crate) fn is_tool(&self) -> bool {
        self.resource.is_some()
    }

    fn check_agent(&mut self) -> syn::Result<()> {
        if self.resource.is_none() {
            let message = "say what this tool reads: `#[agent_cache(resource = \"files\")]`";
            return Err(syn::Error::new(Span::call_site(), message));
        }
        if let (ScopeOption::Session, Some(backup)) = (self.scope, &self.backup) {
            let message = "a tool with `scope = \"session\"` has no backup: its results end with the session; leave the \
                           backup out, or write `scope = \"global\"`";
            return Err(syn::Error::new(backup.span(), message));
        }
        if let (ScopeOption::Session, Some(remote)) = (self.scope, &self.remote) {
            let message = "a tool with `scope = \"session\"` has nothing beyond this host: its results end with the \
                           session; leave `remote` out, or write `scope = \"global\"`";
            return Err(syn::Error::new(remote.span(), message));
        }
        Ok(())
    }

    fn one(&mut self, kind: MacroKind, input: ParseStream<'_>, seen: &mut Vec<Ident>) -> syn::Result<()> {
        if !input.peek(Ident::peek_any) {
            let message =
                format!("an option begins with its name, as in `maxsize = 1000`; there are {}", words(kind));
            return Err(input.error(message));
        }
        let word = input.call(Ident::parse_any)?;
        let text = word.to_string();
        if seen.contains(&word) {
            return Err(syn::Error::new(word.span(), format!("`{text}` stands here twice; leave one out")));
        }
        match &*text {
            "resource" if kind == MacroKind::Agent => self.resource = Some(name(&word, input)?),
            "scope" if kind == MacroKind::Agent => self.scope = scope(&word, input)?,
            "result" | "skip_self" | "associated" if kind == MacroKind::Agent => {
                let message = format!("an agent's tool has no option `{text}`; there are {AGENT_WORDS}");
                return Err(syn::Error::new(word.span(), message));
            }
            "maxsize" => self.maxsize = or_none(value(&word, "1000", input)?),
            "ttl" if kind == MacroKind::Lru => {
                let message = "`async_lru` has no `ttl`; write `#[async_ttl(ttl = ...)]`";
                return Err(syn::Error::new(word.span(), message));
            }
            "ttl" => self.ttl = ttl(&word, input)?,
            "eviction" => self.eviction = eviction(&word, input)?,
            "backup" => self.backup = Some(value(&word, "DiskBackend::new(\"function.cache\")", input)?),
            "remote" => self.remote = Some(value(&word, "redis()", input)?),
            "clock" => self.clock = Some(value(&word, "Clock::tokio()", input)?),
            "name" => self.name = Some(name(&word, input)?),
            "key" => self.key = Some(key(&word, input)?),
            "result" => self.result = Some(flag(&word, input)?),
            "cache_none" if input.peek(Token![=]) => {
                self.cache_none = (!flag(&word, input)?).then(|| word.span());
            }
            "cache_none" => {
                let message = "`None` is cached unless you write `cache_none = false`";
                return Err(syn::Error::new(word.span(), message));
            }
            "associated" => self.associated = flag(&word, input)?.then(|| word.span()),
            "skip_self" => self.skip_self = flag(&word, input)?.then(|| word.span()),
            "crate" => {
                expect_value(&word, "path::to::async_cache", input)?;
                self.place = Some(input.call(Path::parse_mod_style)?);
            }
            _ => {
                let message = format!("there is no option `{text}`; there are {}", words(kind));
                return Err(syn::Error::new(word.span(), message));
            }
        }
        seen.push(word);
        Ok(())
    }
}

fn words(kind: MacroKind) -> &'static str {
    if kind == MacroKind::Agent { AGENT_WORDS } else { WORDS }
}

/// `"global"` or `"session"`.
pub(crate) fn scope(word: &Ident, input: ParseStream<'_>) -> syn::Result<ScopeOption> {
    expect_value(word, "\"session\"", input)?;
    let text: LitStr = input
        .parse()
        .map_err(|error| syn::Error::new(error.span(), "`scope` is `\"global\"` or `\"session\"`"))?;
    match &*text.value() {
        "global" => Ok(ScopeOption::Global),
        "session" => Ok(ScopeOption::Session),
        _ => Err(syn::Error::new(text.span(), "`scope` is `\"global\"` or `\"session\"`")),
    }
}

/// Skips an invalid option, so that mistakes in later options are reported too.
fn skip_to_comma(input: ParseStream<'_>) {
    while !input.is_empty() && !input.peek(Token![,]) {
        let _: syn::Result<proc_macro2::TokenTree> = input.parse();
    }
}

fn expect_value(word: &Ident, example: &str, input: ParseStream<'_>) -> syn::Result<()> {
    if input.peek(Token![=]) {
        input.parse::<Token![=]>()?;
        if !input.is_empty() && !input.peek(Token![,]) {
            return Ok(());
        }
    }
    Err(syn::Error::new(word.span(), format!("`{word}` wants a value: write `{word} = {example}`")))
}

fn value(word: &Ident, example: &str, input: ParseStream<'_>) -> syn::Result<Expr> {
    expect_value(word, example, input)?;
    input.parse()
}

/// A name without a value means yes.
fn flag(word: &Ident, input: ParseStream<'_>) -> syn::Result<bool> {
    if !input.peek(Token![=]) {
        return Ok(true);
    }
    input.parse::<Token![=]>()?;
    let value = input.parse::<LitBool>();
    value
        .map(|value| value.value)
        .map_err(|error| syn::Error::new(error.span(), format!("`{word}` is `true` or `false`")))
}

fn or_none(value: Expr) -> Option<Expr> {
    match &value {
        Expr::Path(path) if path.path.is_ident("None") => None,
        _ => Some(value),
    }
}

fn ttl(word: &Ident, input: ParseStream<'_>) -> syn::Result<Option<TtlOption>> {
    let given = value(word, "\"60s\"", input)?;
    let literal = match &given {
        Expr::Lit(literal) => &literal.lit,
        _ => return Ok(or_none(given).map(TtlOption::Given)),
    };
    let syn::Lit::Str(text) = literal else {
        let message = format!(
            "a time has a unit: write `ttl = \"{}s\"`, or \"250ms\", \"1h 30m\", or a `Duration`",
            quote!(#literal)
        );
        return Err(syn::Error::new(given.span(), message));
    };
    let duration = humantime::parse_duration(&text.value()).map_err(|error| {
        syn::Error::new(
            text.span(),
            format!("this is not a time ({error}): write \"60s\", \"250ms\" or \"1h 30m\""),
        )
    })?;
    let milliseconds = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if milliseconds == 0 {
        let message = "a time to live of less than a millisecond caches nothing; leave the attribute out";
        return Err(syn::Error::new(text.span(), message));
    }
    Ok(Some(TtlOption::Milliseconds(milliseconds)))
}

fn eviction(word: &Ident, input: ParseStream<'_>) -> syn::Result<EvictionOption> {
    expect_value(word, "lru", input)?;
    let policy = input.call(Ident::parse_any)?;
    match &*policy.to_string() {
        "lru" => Ok(EvictionOption::Lru),
        "adaptive" => Ok(EvictionOption::Adaptive),
        _ => Err(syn::Error::new(policy.span(), "`eviction` is `lru` or `adaptive`")),
    }
}

pub(crate) fn name(word: &Ident, input: ParseStream<'_>) -> syn::Result<LitStr> {
    expect_value(word, "\"products\"", input)?;
    let name: LitStr = input
        .parse()
        .map_err(|error| syn::Error::new(error.span(), "a name is a text: write `name = \"products\"`"))?;
    if name.value().is_empty() || name.value().contains('\u{1F}') {
        return Err(syn::Error::new(name.span(), "a name is not empty, and has no control characters"));
    }
    Ok(name)
}

fn key(word: &Ident, input: ParseStream<'_>) -> syn::Result<Key> {
    if input.peek(Token![:]) {
        input.parse::<Token![:]>()?;
        let ty = input.parse()?;
        return Ok(Key::Made(Box::new(ty), value(word, "id", input)?));
    }
    let expression = value(word, "id", input)?;
    arguments(&expression).map(Key::Arguments).ok_or_else(|| {
        let written = quote!(#expression);
        let message = format!(
            "an expression that makes a key needs its type: write `key: String = {written}`, with your type for \
             `String`; only arguments go without, as in `key = id` or `key = (tenant, id)`"
        );
        syn::Error::new(expression.span(), message)
    })
}

/// `id`, `(id)` or `(tenant, id)`.
fn arguments(expression: &Expr) -> Option<Vec<Ident>> {
    let one = |expression: &Expr| match expression {
        Expr::Path(path) => path.path.get_ident().cloned(),
        _ => None,
    };
    match expression {
        Expr::Tuple(tuple) => tuple.elems.iter().map(one).collect(),
        Expr::Paren(inner) => arguments(&inner.expr),
        _ => one(expression).map(|argument| vec![argument]),
    }
}

//! Whether a `fn` returns a future, as far as its return type shows.
//!
//! A write that is an `async fn` has ended when it returns. A `fn` whose result is a future has not
//! written anything when it returns: the write ends when the future ends. `#[async_trait]` turns
//! each `async fn` into a `fn` of the second kind before other attributes see it.
//!
//! Only the text of the type is known here. A future under another name is treated as a value.

use syn::{GenericArgument, PathArguments, ReturnType, Type, TypeParamBound, TypePath};

/// A returned future, by the type required of its replacement.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Future {
    /// `impl Future<Output = T>`
    Plain,
    /// `Pin<Box<dyn Future<Output = T>>>`, `BoxFuture<T>`
    Boxed,
}

/// The future returned by a `fn`, or `None`. If the future cannot be replaced by a future that
/// waits for it, the result is an error.
pub(crate) fn returned(output: &ReturnType) -> syn::Result<Option<Future>> {
    let ReturnType::Type(_, ty) = output else { return Ok(None) };
    match kind(ty) {
        ReturnKind::Future(future) => Ok(Some(future)),
        ReturnKind::OtherFuture => {
            let message = "the write is over when this future is, and it cannot be waited for in this form: write an \
                           `async fn`, or return `Pin<Box<dyn Future<Output = T> + Send>>`";
            Err(syn::Error::new_spanned(ty, message))
        }
        ReturnKind::Value => Ok(None),
    }
}

enum ReturnKind {
    Future(Future),
    OtherFuture,
    Value,
}

fn kind(ty: &Type) -> ReturnKind {
    match ty {
        Type::Group(group) => kind(&group.elem),
        Type::Paren(paren) => kind(&paren.elem),
        Type::ImplTrait(it) if is_future(it.bounds.iter()) => {
            // An async block lacks a second trait, for example `FusedFuture` or `Unpin`.
            let is_plain = it.bounds.iter().all(|bound| is_future([bound].into_iter()) || is_kept(bound));
            if is_plain { ReturnKind::Future(Future::Plain) } else { ReturnKind::OtherFuture }
        }
        Type::Path(path) => of_path(path),
        _ => ReturnKind::Value,
    }
}

fn of_path(path: &TypePath) -> ReturnKind {
    let Some(last) = path.path.segments.last() else { return ReturnKind::Value };
    let inner = match &last.arguments {
        PathArguments::AngleBracketed(arguments) => {
            arguments.args.iter().find_map(|argument| match argument {
                GenericArgument::Type(ty) => Some(ty),
                _ => None,
            })
        }
        _ => None,
    };
    match (&*last.ident.to_string(), inner) {
        ("BoxFuture" | "LocalBoxFuture", _) => ReturnKind::Future(Future::Boxed),
        ("Pin", Some(pinned)) => match boxed(pinned) {
            Some(inner) if holds_future(inner) => ReturnKind::Future(Future::Boxed),
            _ => ReturnKind::Value,
        },
        ("Box", Some(inner)) if holds_future(inner) => ReturnKind::OtherFuture,
        _ => ReturnKind::Value,
    }
}

/// The type inside a `Box`.
fn boxed(ty: &Type) -> Option<&Type> {
    let Type::Path(path) = ty else { return None };
    let last = path.path.segments.last().filter(|last| last.ident == "Box")?;
    let PathArguments::AngleBracketed(arguments) = &last.arguments else { return None };
    arguments.args.iter().find_map(|argument| match argument {
        GenericArgument::Type(ty) => Some(ty),
        _ => None,
    })
}

fn holds_future(ty: &Type) -> bool {
    match ty {
        Type::TraitObject(object) => is_future(object.bounds.iter()),
        Type::ImplTrait(it) => is_future(it.bounds.iter()),
        Type::Group(group) => holds_future(&group.elem),
        Type::Paren(paren) => holds_future(&paren.elem),
        _ => false,
    }
}

fn is_future<'a>(mut bounds: impl Iterator<Item = &'a TypeParamBound>) -> bool {
    bounds.any(|bound| match bound {
        TypeParamBound::Trait(bound) => bound.path.segments.last().is_some_and(|last| last.ident == "Future"),
        _ => false,
    })
}

/// Whether an async block satisfies the bound if its contents do: a lifetime, `Send`, `Sync`.
fn is_kept(bound: &TypeParamBound) -> bool {
    match bound {
        TypeParamBound::Trait(bound) => {
            let bound = &bound.path;
            ["Send", "Sync"].iter().any(|name| bound.segments.last().is_some_and(|last| last.ident == name))
        }
        _ => true,
    }
}

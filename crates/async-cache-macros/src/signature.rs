//! The cacheable parts of a function's signature.
//!
//! Owns the checks, and the model of an argument: a cached function runs independently of its
//! caller, so every argument is kept as an owned value and lent to the function.

use proc_macro2::Span;
use quote::{ToTokens, format_ident, quote};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{
    FnArg, GenericArgument, GenericParam, Generics, Ident, ItemFn, Lifetime, Pat, PathArguments, Receiver,
    ReturnType, Signature, Type, TypeArray, TypeImplTrait, TypePath, TypeReference, TypeSlice,
    TypeTraitObject,
};

use crate::mistakes::Mistakes;
use crate::options::{Key, Options};
use crate::surroundings;

/// An argument of a cached function or of a write.
pub(crate) struct Argument {
    /// The argument's name; generated if the pattern is not a name.
    pub(crate) name: Ident,
    /// The type as passed.
    pub(crate) ty: Type,
    /// The target type of a reference to the argument.
    pub(crate) target: Type,
    /// Whether the argument is a reference.
    pub(crate) is_borrowed: bool,
    /// Whether the argument is a reference with lifetime `'static`: the load keeps it unchanged.
    pub(crate) is_static: bool,
}

impl Argument {
    /// All arguments except the receiver.
    pub(crate) fn all(signature: &Signature) -> Vec<Self> {
        let typed = signature.inputs.iter().filter_map(|argument| match argument {
            FnArg::Receiver(_) => None,
            FnArg::Typed(typed) => Some(typed),
        });
        let model = |(number, argument): (usize, &syn::PatType)| {
            let name = match &*argument.pat {
                Pat::Ident(name) if name.subpat.is_none() && name.by_ref.is_none() => name.ident.clone(),
                other => format_ident!("argument_{number}", span = other.span()),
            };
            let ty = (*argument.ty).clone();
            let (target, lifetime) = match unwrapped(&ty) {
                Type::Reference(reference) => ((*reference.elem).clone(), Some(&reference.lifetime)),
                _ => (ty.clone(), None),
            };
            let is_borrowed = lifetime.is_some();
            let is_static = lifetime.is_some_and(|it| it.as_ref().is_some_and(|it| it.ident == "static"));
            Self { name, ty, target, is_borrowed, is_static }
        };
        typed.enumerate().map(model).collect()
    }

    /// A reference to the argument, whether or not it is a reference already.
    pub(crate) fn lent(&self) -> proc_macro2::TokenStream {
        let name = &self.name;
        if self.is_borrowed { quote!(#name) } else { quote!(&#name) }
    }
}

/// The type without the invisible groups that other macros leave around it.
fn unwrapped(ty: &Type) -> &Type {
    match ty {
        Type::Group(group) => unwrapped(&group.elem),
        Type::Paren(paren) => unwrapped(&paren.elem),
        other => other,
    }
}

/// The return type, and the part of it that is cached.
pub(crate) enum Returns {
    Plain(Type),
    Result(Type),
}

/// A function whose signature can be cached.
pub(crate) struct Cacheable {
    pub(crate) function: ItemFn,
    pub(crate) arguments: Vec<Argument>,
    pub(crate) returns: Returns,
    pub(crate) receiver: Option<Receiver>,
    /// Whether the function stands in an `impl` block.
    pub(crate) is_associated: bool,
}

impl Cacheable {
    pub(crate) fn check(options: &Options, function: ItemFn) -> syn::Result<Self> {
        let mut mistakes = Mistakes::default();
        let signature = &function.sig;
        check_qualifiers(signature, &mut mistakes);
        check_generics(&signature.generics, &mut mistakes);
        let receiver = signature.receiver().cloned();
        let is_associated =
            receiver.is_some() || options.associated.is_some() || surroundings::is_associated(&function);
        check_receiver(options, signature, receiver.as_ref(), is_associated, &mut mistakes);
        if is_associated && !options.is_tool() {
            check_backup(options, signature, &mut mistakes);
        }
        let arguments = Argument::all(signature);
        for argument in &arguments {
            check_argument(argument, &mut mistakes);
        }
        check_key(options, &arguments, &mut mistakes);
        let returned = match &signature.output {
            ReturnType::Default => syn::parse_quote_spanned!(signature.ident.span()=> ()),
            ReturnType::Type(_, ty) => (**ty).clone(),
        };
        check_returned(&returned, &mut mistakes);
        if options.is_tool() && !is_named_result(&returned) {
            let message = "an agent's tool returns a `Result`, for a loop is an error: write `Result<T, E>`";
            mistakes.at(&returned, message);
        }
        mistakes.none_or_error()?;
        let is_result = options.result.unwrap_or_else(|| is_named_result(&returned));
        let returns = if is_result { Returns::Result(returned) } else { Returns::Plain(returned) };
        Ok(Self { function, arguments, returns, receiver, is_associated })
    }
}

fn check_qualifiers(signature: &Signature, mistakes: &mut Mistakes) {
    if let Some(word) = &signature.constness {
        mistakes.at(word, "a `const fn` is evaluated while compiling; there is nothing to cache");
    } else if signature.asyncness.is_none() {
        let message = "only async functions are cached: write `async fn`; for another one, call \
                       `AsyncCache::get_or_load` yourself";
        mistakes.at(signature.fn_token, message);
    }
    if let Some(word) = &signature.unsafety {
        let message = "an `unsafe fn` cannot be cached, for the cache calls it later and cannot keep its promises; \
                       cache a safe function that calls it";
        mistakes.at(word, message);
    }
    if let Some(abi) = &signature.abi {
        mistakes.at(abi, "a function of another language cannot be cached; cache one that calls it");
    }
    if let Some(variadic) = &signature.variadic {
        mistakes.at(variadic, "a function with any number of arguments cannot be cached");
    }
}

fn check_generics(generics: &Generics, mistakes: &mut Mistakes) {
    for parameter in &generics.params {
        if !matches!(parameter, GenericParam::Lifetime(_)) {
            let message = "a cached function is not generic, for its cache has one type; write the type itself, or a \
                           function for each, or keep an `AsyncCache` of your own";
            mistakes.at(parameter, message);
        }
    }
}

fn check_receiver(
    options: &Options,
    signature: &Signature,
    receiver: Option<&Receiver>,
    is_associated: bool,
    mistakes: &mut Mistakes,
) {
    if is_associated && options.is_tool() {
        let place = receiver.map_or_else(|| signature.ident.to_token_stream(), ToTokens::to_token_stream);
        let message = "a tool is a function, not a method: write it outside of the `impl` block, and take what it needs \
                       as an argument, or from a static";
        mistakes.at(place, message);
        return;
    }
    let Some(receiver) = receiver else {
        if let Some(word) = options.skip_self {
            mistakes.add(syn::Error::new(word, "this function has no `self` to skip; leave `skip_self` out"));
        }
        return;
    };
    let is_mut_borrow = receiver.reference.is_some() && receiver.mutability.is_some()
        || matches!(&*receiver.ty, Type::Reference(reference) if reference.mutability.is_some());
    if is_mut_borrow {
        mistakes
            .at(receiver, "a cached method cannot change `self`, for a hit does not run it: write `&self`");
    } else if options.skip_self.is_none() {
        let message = "the cache of a method is one for all instances, and `self` is no part of its key: write \
                       `skip_self` in the attribute, if that is what you want";
        mistakes.at(receiver, message);
    }
}

fn check_backup(options: &Options, signature: &Signature, mistakes: &mut Mistakes) {
    if let (Some(backup), None) = (options.backup.as_ref().or(options.remote.as_ref()), &options.name) {
        let message = format!(
            "a method does not know its type's name, which its file is marked with: add `name = \"Type::{}\"`",
            signature.ident
        );
        mistakes.at(backup, message);
    }
}

fn check_argument(argument: &Argument, mistakes: &mut Mistakes) {
    if let Type::Reference(reference) = unwrapped(&argument.ty)
        && let Some(word) = &reference.mutability
    {
        let message =
            "a cached function cannot change its arguments, for a hit does not run it; return what is new";
        mistakes.at(word, message);
        return;
    }
    let found = Obstacles::in_type(&argument.target);
    if let Some(place) = found.impl_trait {
        mistakes.at(place, "`impl Trait` is not one type, and a key is: write the type itself");
    } else if let Some(place) = found.self_type {
        mistakes.at(place, "a static cache does not know `Self`: write the name of the type");
    } else if let Some(place) = found.dynamic.filter(|_| argument.is_borrowed && !argument.is_static) {
        mistakes
            .at(place, "a trait object behind a reference cannot be kept for the load: take it as an `Arc`");
    } else if let Some(place) = found.borrow {
        let message = "a borrow inside of an argument cannot be kept for the load: take what is owned (`String` for \
                       `&str`, `Vec<T>` for `&[T]`); only a reference to the whole argument may be borrowed";
        mistakes.add(syn::Error::new(place, message));
    }
}

fn check_key(options: &Options, arguments: &[Argument], mistakes: &mut Mistakes) {
    let names: Vec<String> = arguments.iter().map(|argument| argument.name.to_string()).collect();
    for argument in arguments {
        let is_part = match &options.key {
            Some(Key::Arguments(key)) => key.contains(&argument.name),
            Some(Key::Made(..)) => false,
            None => true,
        };
        if is_part && let Some(float) = float_in(&argument.target) {
            let float = float.to_token_stream();
            let bits = if float.to_string() == "f32" { "u32" } else { "u64" };
            let made = match unwrapped(&argument.target) {
                Type::Path(path) if path.path.get_ident().is_some() => {
                    format!("; or make the key with `key: {bits} = {}.to_bits()`", argument.name)
                }
                _ => String::new(),
            };
            let message = format!(
                "`{float}` cannot be a key, for NaN does not equal itself: take the bits, as `{bits}`, call with \
                 `to_bits()`, and make the number with `{float}::from_bits`{made}"
            );
            mistakes.at(float, message);
        }
    }
    if let Some(Key::Made(ty, _)) = &options.key
        && let Some(float) = float_in(ty)
    {
        mistakes.at(
            float,
            "a floating point number cannot be a key, for NaN does not equal itself: use `to_bits()`",
        );
    }
    if let Some(Key::Arguments(key)) = &options.key {
        for part in key {
            if !names.contains(&part.to_string()) {
                mistakes.at(part, format!("there is no argument `{part}`; there are: {}", names.join(", ")));
            }
        }
    }
    if let Some(Key::Made(ty, _)) = &options.key
        && let Some(place) = Obstacles::in_type(ty).borrow
    {
        mistakes.add(syn::Error::new(place, "a key owns what it is made of: write `String` for `&str`"));
    }
    let parts = match &options.key {
        Some(Key::Arguments(key)) => key.len(),
        Some(Key::Made(..)) => 0,
        None => arguments.len(),
    };
    if parts > 8
        && let Some(ninth) = arguments.get(8)
    {
        let message = "a key has at most eight arguments: name those that matter with `key = (first, second)`, or \
                       make it with `key: Type = expression`";
        mistakes.at(&ninth.ty, message);
    }
}

fn check_returned(returned: &Type, mistakes: &mut Mistakes) {
    let found = Obstacles::in_type(returned);
    if let Some(place) = found.impl_trait {
        mistakes.at(place, "`impl Trait` is not one type, and a cached value is: write the type itself");
    } else if let Some(place) = found.self_type {
        mistakes.at(place, "a static cache does not know `Self`: write the name of the type");
    } else if let Some(place) = found.borrow {
        let message = "a cached value outlives the call, so it owns what it holds: return `String` for `&str`, \
                       `Vec<T>` for `&[T]`, or an `Arc`";
        mistakes.add(syn::Error::new(place, message));
    }
}

/// A floating-point number used in a type's comparison, as far as the type is known: not in
/// `OrderedFloat<f64>`.
fn float_in(ty: &Type) -> Option<&TypePath> {
    match unwrapped(ty) {
        Type::Path(path) if path.path.is_ident("f32") || path.path.is_ident("f64") => Some(path),
        Type::Path(path) => {
            let last = path.path.segments.last()?;
            let PathArguments::AngleBracketed(arguments) = &last.arguments else { return None };
            let compares = ["Option", "Vec", "Box", "Arc"].iter().any(|name| last.ident == name);
            arguments.args.iter().filter(|_| compares).find_map(|argument| match argument {
                GenericArgument::Type(ty) => float_in(ty),
                _ => None,
            })
        }
        Type::Tuple(tuple) => tuple.elems.iter().find_map(float_in),
        Type::Array(TypeArray { elem, .. })
        | Type::Slice(TypeSlice { elem, .. })
        | Type::Reference(TypeReference { elem, .. }) => float_in(elem),
        _ => None,
    }
}

/// Whether the last name of a type ends in `Result`, as the names of `Result` itself and its
/// aliases do.
fn is_named_result(ty: &Type) -> bool {
    match unwrapped(ty) {
        Type::Path(path) => {
            path.path.segments.last().is_some_and(|last| last.ident.to_string().ends_with("Result"))
        }
        _ => false,
    }
}

/// The parts of a type that prevent caching.
#[derive(Default)]
struct Obstacles<'a> {
    impl_trait: Option<&'a TypeImplTrait>,
    self_type: Option<&'a TypePath>,
    dynamic: Option<&'a TypeTraitObject>,
    /// A borrow with a lifetime other than `'static`.
    borrow: Option<Span>,
}

impl<'a> Obstacles<'a> {
    fn in_type(ty: &'a Type) -> Self {
        let mut found = Self::default();
        found.visit_type(ty);
        found
    }
}

impl<'a> Visit<'a> for Obstacles<'a> {
    fn visit_type_impl_trait(&mut self, ty: &'a TypeImplTrait) {
        self.impl_trait.get_or_insert(ty);
    }

    fn visit_type_path(&mut self, ty: &'a TypePath) {
        if ty.path.segments.first().is_some_and(|first| first.ident == "Self") {
            self.self_type.get_or_insert(ty);
        }
        visit::visit_type_path(self, ty);
    }

    fn visit_type_trait_object(&mut self, ty: &'a TypeTraitObject) {
        self.dynamic.get_or_insert(ty);
        visit::visit_type_trait_object(self, ty);
    }

    // A pointer to a function borrows nothing, whatever its arguments are.
    fn visit_type_bare_fn(&mut self, _: &'a syn::TypeBareFn) {}

    fn visit_type_reference(&mut self, ty: &'a TypeReference) {
        if ty.lifetime.is_none() {
            self.borrow.get_or_insert(ty.to_token_stream().span());
        }
        visit::visit_type_reference(self, ty);
    }

    fn visit_lifetime(&mut self, lifetime: &'a Lifetime) {
        if lifetime.ident != "static" {
            self.borrow.get_or_insert(lifetime.span());
        }
    }
}

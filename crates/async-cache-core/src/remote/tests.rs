//! The protocol, checked over the real machine: every order of events of small worlds, each rule
//! left out in turn, and long random walks of larger worlds.

mod canonical;
mod search;
mod table;
mod valid;
mod walk;
mod world;

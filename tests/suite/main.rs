//! Integration tests: the pure core against models and corpora, and the real binary with real clients.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::float_cmp,
    clippy::print_stderr,
    reason = "a test that panics has done its work"
)]

mod access;
mod agent;
mod aggregate;
mod archive;
mod background;
mod cli;
mod clients;
mod clocks;
mod completion;
mod containers;
mod corpus;
mod damaged;
mod deploy;
mod descriptors;
mod docs;
mod ending;
mod exhausted;
mod exposed;
mod failures;
mod fd_store;
mod groups;
mod guard;
mod handover;
mod hardening;
mod hdr;
mod helm;
mod hostile_files;
mod impostor;
mod install;
mod keeping;
mod kills;
mod kubernetes;
mod labels;
mod lifecycle;
mod listing;
mod load;
mod manual;
mod monitoring;
mod mute;
mod names;
mod namespaces;
mod netns;
mod nri;
mod numbers;
mod oci;
mod openapi;
mod packaging;
mod page;
mod probe;
mod prometheus;
mod protobuf;
mod publish;
mod readers;
mod reading;
mod receiving;
mod reconcile;
mod recorded;
mod resources;
mod restart;
mod screen;
mod spoofing;
mod surviving;
mod terminal;
mod tools;
mod unix;
mod untaint;
mod verifying;
mod words;

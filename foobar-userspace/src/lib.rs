//! foobar's user space: configuration, pure decisions, and the edges that carry them out.
#![deny(unsafe_code)]

pub mod acme;
pub mod admin;
pub mod balancer;
pub mod config;
pub mod connections;
pub mod controller;
pub mod courier;
pub mod database;
pub mod doctor;
pub mod explain;
pub mod firewall;
pub mod http;
pub mod kernel;
pub mod labels;
pub mod logbook;
pub mod monitor;
pub mod mysql;
pub mod names;
pub mod probe;
pub mod proxy;
pub mod routes;
pub mod snapshot;
pub mod stable;
pub mod steering;
pub mod succession;
pub mod tally;
pub mod web;

//! Goal: the simulator can be trusted. Method: the contract suite without faults, every run twice, each modelled
//! misfortune provoked on its own, and a known-wrong pattern for every checker.

mod linear;
mod planted;
mod world;

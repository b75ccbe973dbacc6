//! Generated clients: a [`Plan`] says who does what when, as data, so that it can be printed, repeated and shrunk.

use std::fmt;
use std::future::Future;
use std::rc::Rc;

use super::executor::Stuck;
use super::faults::{Setup, stream};
use super::world::World;
use crate::random::Random;

/// One operation of one client, after a wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step<O> {
    /// How long the client waits before, in milliseconds.
    pub wait_millis: u64,
    /// What it does then.
    pub operation: O,
}

/// Does its steps one after the other, each when the answer to the one before has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client<O> {
    /// Where its requests arrive.
    pub location: usize,
    /// What it does.
    pub steps: Vec<Step<O>>,
}

/// Everything about one run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan<O> {
    /// The world.
    pub setup: Setup,
    /// The clients; their numbers are their places here.
    pub clients: Vec<Client<O>>,
}

/// How large generated plans are. Sizes are drawn from 1 to these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Clients at most.
    pub clients_max: u64,
    /// Steps of each at most.
    pub steps_max: u64,
    /// Wait before each step at most, in milliseconds. Half of all waits are a hundredth of it at most.
    pub wait_millis_max: u64,
}

impl<O> Plan<O> {
    /// The plan of this setup's seed; `operation` draws each step's operation.
    pub fn generate(setup: Setup, shape: Shape, mut operation: impl FnMut(&dyn Fn(u64) -> u64) -> O) -> Self {
        let random = stream(setup.seed, "workload");
        let below = |bound| random.below(bound);
        let locations = u64::try_from(setup.locations).unwrap_or(1);
        let clients = (0..=below(shape.clients_max)).map(|_| Client {
            location: usize::try_from(below(locations)).unwrap_or(0),
            steps: (0..=below(shape.steps_max))
                .map(|_| {
                    let reach = if below(2) == 0 { shape.wait_millis_max / 100 } else { shape.wait_millis_max };
                    Step { wait_millis: below(reach.saturating_add(1)), operation: operation(&below) }
                })
                .collect(),
        });
        Self { clients: clients.collect(), setup }
    }

    /// Operations of all clients together.
    pub fn steps(&self) -> usize {
        self.clients.iter().map(|client| client.steps.len()).sum()
    }
}

impl<O: Clone + 'static> Plan<O> {
    /// Runs every client in `world` until nothing is left to happen. `act` gets the client's number, its location and
    /// the operation.
    ///
    /// # Errors
    ///
    /// Tasks kept waking each other without letting time pass.
    pub fn run<F: Future<Output = ()>>(
        &self,
        world: &World,
        act: impl Fn(usize, usize, O) -> F + 'static,
    ) -> Result<(), Stuck> {
        let act = Rc::new(act);
        for (number, client) in self.clients.iter().enumerate() {
            let (act, client, world_of_client) = (act.clone(), client.clone(), world.clone());
            world.spawn(async move {
                for step in client.steps {
                    world_of_client.sleep(step.wait_millis).await;
                    act(number, client.location, step.operation).await;
                }
            });
        }
        world.run()
    }
}

impl<O: fmt::Debug> fmt::Display for Plan<O> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Setup { seed, profile, faults, locations } = &self.setup;
        writeln!(formatter, "seed {seed}, {}, {locations} locations, faults: {faults}", profile.name)?;
        for (number, client) in self.clients.iter().enumerate() {
            writeln!(formatter, "client {number} at location {}:", client.location)?;
            for step in &client.steps {
                writeln!(formatter, "  after {} ms: {:?}", step.wait_millis, step.operation)?;
            }
        }
        Ok(())
    }
}

/// A number below `count`: four times of five one of the first two, so that clients meet; else any of them.
pub fn hot_or_cold(below: &dyn Fn(u64) -> u64, count: u64) -> u64 {
    if below(5) < 4 { below(count.min(2)) } else { below(count) }
}

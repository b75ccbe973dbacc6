//! Work that goes on after the answer was given: `waitUntil` as an argument.
//!
//! Background work never changes an answer already given, and the platform may end it after 30 seconds or with the
//! isolate, so nothing may depend on its completion. Source: <https://developers.cloudflare.com/workers/runtime-apis/context/>

use std::cell::RefCell;
use std::fmt;
use std::future::Future;
use std::pin::Pin;

use futures_util::future::join_all;
use std::rc::Rc;

/// Where work goes that nobody waits for.
pub trait Background {
    /// Takes `work` over; it runs some time later, or never.
    fn spawn(&self, work: impl Future<Output = ()> + 'static);
}

type Job = Pin<Box<dyn Future<Output = ()>>>;

/// Keeps the work until a test asks for it. Clones share the queue.
#[derive(Clone, Default)]
pub struct Deferred(Rc<RefCell<Vec<Job>>>);

impl Deferred {
    /// Runs everything handed over so far side by side, beginning in order, then what that work handed over.
    pub async fn run(&self) {
        loop {
            let work = std::mem::take(&mut *self.0.borrow_mut());
            if work.is_empty() {
                return;
            }
            join_all(work).await;
        }
    }

    /// How many pieces of work wait.
    pub fn len(&self) -> usize {
        self.0.borrow().len()
    }

    /// Whether no work waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl fmt::Debug for Deferred {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Deferred({})", self.len())
    }
}

impl Background for Deferred {
    fn spawn(&self, work: impl Future<Output = ()> + 'static) {
        self.0.borrow_mut().push(Box::pin(work));
    }
}

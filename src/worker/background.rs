//! `waitUntil`: at most 30 seconds after the answer.

use std::rc::Rc;

use crate::background::Background;

/// The work that one invocation may leave behind.
#[derive(Clone, Debug)]
pub struct WaitUntil(Rc<worker::Context>);

impl WaitUntil {
    /// The background of the invocation that `context` belongs to.
    pub fn new(context: worker::Context) -> Self {
        Self(Rc::new(context))
    }
}

impl Background for WaitUntil {
    fn spawn(&self, work: impl Future<Output = ()> + 'static) {
        self.0.wait_until(work);
    }
}

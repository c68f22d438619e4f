//! Says how long work goes on: a line every two seconds for as long as something lasts, and none for what is quicker.

use std::sync::Arc;

use halyard_runtime::task::{self, JoinHandle};
use halyard_runtime::time::{self, Duration, Instant};
use parking_lot::Mutex;

/// What lasts longer is told.
const TELL_EVERY: Duration = Duration::from_secs(2);

/// Long work. Dropped when it is done.
#[derive(Debug)]
pub(super) struct Progress {
    stage: Arc<Mutex<String>>,
    began: Instant,
    teller: Option<JoinHandle<()>>,
}

impl Progress {
    /// Begins to tell of `what`; must be called on a runtime.
    pub(super) fn new(what: &str) -> Self {
        let (stage, began) = (Arc::new(Mutex::new(what.to_owned())), Instant::now());
        let told = Arc::clone(&stage);
        // Its time is real time: in a simulation nothing takes long, and one task more would change every run.
        let teller = (!halyard_runtime::in_sim()).then(|| {
            task::spawn(async move {
                loop {
                    time::sleep(TELL_EVERY).await;
                    let stage = told.lock().clone();
                    tracing::info!("JetStream: {stage}, since {:.0?}", began.elapsed());
                }
            })
        });
        Self {
            stage,
            began,
            teller,
        }
    }

    /// What it is at now.
    pub(super) fn at(&self, stage: &str) {
        stage.clone_into(&mut self.stage.lock());
    }

    /// For how long it has gone on.
    pub(super) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(teller) = self.teller.take() {
            teller.abort();
        }
    }
}

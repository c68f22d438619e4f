//! `halyard_runtime::watch` in the form that openraft wants: its receivers wake in a fixed order, which tokio's do not.

use std::ops::Deref;

use halyard_runtime::watch as ordered;
use openraft_rt::{OptionalSend, OptionalSync, watch};

/// See the module.
#[derive(Debug)]
pub(crate) struct OrderedWatch;

pub(crate) struct Sender<T>(ordered::Sender<T>);

pub(crate) struct Receiver<T>(ordered::Receiver<T>);

pub(crate) struct Borrowed<'a, T>(ordered::Ref<'a, T>);

impl<T> Deref for Borrowed<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl watch::Watch for OrderedWatch {
    type Sender<T: OptionalSend + OptionalSync> = Sender<T>;
    type Receiver<T: OptionalSend + OptionalSync> = Receiver<T>;
    type Ref<'a, T: OptionalSend + 'a> = Borrowed<'a, T>;

    fn channel<T: OptionalSend + OptionalSync>(value: T) -> (Sender<T>, Receiver<T>) {
        let (sender, receiver) = ordered::channel(value);
        (Sender(sender), Receiver(receiver))
    }
}

impl<T: OptionalSend + OptionalSync> watch::WatchSender<OrderedWatch, T> for Sender<T> {
    fn send(&self, value: T) -> Result<(), watch::SendError<T>> {
        if self.0.receiver_count() == 0 {
            return Err(watch::SendError(value));
        }
        self.0.send(value);
        Ok(())
    }

    fn send_if_modified<F: FnOnce(&mut T) -> bool>(&self, modify: F) -> bool {
        self.0.send_if_modified(modify)
    }

    fn borrow_watched(&self) -> Borrowed<'_, T> {
        Borrowed(self.0.borrow())
    }

    fn subscribe(&self) -> Receiver<T> {
        Receiver(self.0.subscribe())
    }
}

impl<T: OptionalSend + OptionalSync> watch::WatchReceiver<OrderedWatch, T> for Receiver<T> {
    async fn changed(&mut self) -> Result<(), watch::RecvError> {
        self.0.changed().await.map_err(|_| watch::RecvError(()))
    }

    fn borrow_watched(&self) -> Borrowed<'_, T> {
        Borrowed(self.0.borrow())
    }

    fn borrow_and_update(&mut self) -> Borrowed<'_, T> {
        Borrowed(self.0.borrow_and_update())
    }
}

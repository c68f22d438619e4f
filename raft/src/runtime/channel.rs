//! The queues inside openraft, without a bound of their own.
//!
//! A bounded send may have to wait, and also waits when its task has used up its turn (tokio's cooperative budget). With
//! an unbounded queue a send completes at its first poll, always, which is what makes [`Group::propose`] a plain call
//! whose order is the order of the log. What bounds the queues instead: a group takes no more than
//! `PROPOSALS_IN_FLIGHT_MAX` proposals, and everything else in them is an answer to one of those, or a peer's request
//! (one in flight for each peer and group).
//!
//! [`Group::propose`]: crate::Group::propose

use std::future::{Future, ready};

use openraft_rt::{
    Mpsc, MpscReceiver, MpscSender, MpscWeakSender, OptionalSend, SendError, TryRecvError,
};
use tokio::sync::mpsc;

/// See the module.
#[derive(Debug)]
pub(crate) struct Unbounded;

pub(crate) struct Sender<T>(mpsc::UnboundedSender<T>);
pub(crate) struct Receiver<T>(mpsc::UnboundedReceiver<T>);
pub(crate) struct WeakSender<T>(mpsc::WeakUnboundedSender<T>);

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Clone for WeakSender<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl Mpsc for Unbounded {
    type Sender<T: OptionalSend> = Sender<T>;
    type Receiver<T: OptionalSend> = Receiver<T>;
    type WeakSender<T: OptionalSend> = WeakSender<T>;

    fn channel<T: OptionalSend>(_buffer: usize) -> (Self::Sender<T>, Self::Receiver<T>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Sender(sender), Receiver(receiver))
    }
}

impl<T: OptionalSend> MpscSender<Unbounded, T> for Sender<T> {
    fn send(&self, message: T) -> impl Future<Output = Result<(), SendError<T>>> + OptionalSend {
        ready(self.0.send(message).map_err(|refused| SendError(refused.0)))
    }

    fn downgrade(&self) -> WeakSender<T> {
        WeakSender(self.0.downgrade())
    }
}

impl<T: OptionalSend> MpscReceiver<T> for Receiver<T> {
    fn recv(&mut self) -> impl Future<Output = Option<T>> + OptionalSend {
        self.0.recv()
    }

    fn try_recv(&mut self) -> Result<T, TryRecvError> {
        self.0.try_recv().map_err(|error| match error {
            mpsc::error::TryRecvError::Empty => TryRecvError::Empty,
            mpsc::error::TryRecvError::Disconnected => TryRecvError::Disconnected,
        })
    }
}

impl<T: OptionalSend> MpscWeakSender<Unbounded, T> for WeakSender<T> {
    fn upgrade(&self) -> Option<Sender<T>> {
        self.0.upgrade().map(Sender)
    }
}

//! Publishing and subscribing without a connection, for programs that embed the server and for the server itself.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use futures::{Stream, StreamExt};
use halyard_runtime::random;
use halyard_runtime::time::{self, Duration};
use parking_lot::Mutex;

use super::account::{Account, SubscribeError};
use super::message::{Delivered, Publish, Sink};
use super::origin::Origin;
use super::subscription::Subscription;
use crate::caps;

/// A message that was taken out of the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Where it was published to.
    pub subject: Bytes,
    /// Where an answer is wanted.
    pub reply: Option<Bytes>,
    /// The header block; empty if there is none.
    pub headers: Bytes,
    /// The payload.
    pub payload: Bytes,
}

/// The messages of one subscription, as a stream. Dropping it unsubscribes.
///
/// What is not taken waits, up to [`caps::LOCAL_PENDING_BYTES`]; what comes beyond that is lost and
/// [counted](Messages::missed).
pub struct Messages {
    account: Arc<Account>,
    subscription: Arc<Subscription>,
    queue: Arc<Queue>,
}

/// Why a request was not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Nobody is there to answer.
    #[error("no responders")]
    NoResponders,
    /// No answer came in time.
    #[error("timeout")]
    TimedOut,
}

#[derive(Default)]
struct Queue(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    messages: VecDeque<Message>,
    bytes: usize,
    missed: u64,
    ended: bool,
    reader: Option<Waker>,
}

impl Account {
    /// Subscribes, and gives what comes as a stream.
    ///
    /// # Errors
    /// [`SubscribeError::InvalidSubject`]: the filter is not a valid one.
    pub fn messages(
        self: &Arc<Self>,
        filter: &[u8],
        queue_group: Option<&[u8]>,
    ) -> Result<Messages, SubscribeError> {
        let queue = Arc::new(Queue::default());
        let sink = Arc::clone(&queue);
        let subscription = self.subscribe(filter, queue_group, sink)?;
        let account = Arc::clone(self);
        Ok(Messages {
            account,
            subscription,
            queue,
        })
    }

    /// Publishes `message` with an inbox for the answer, and waits for the first.
    ///
    /// # Errors
    /// [`RequestError`]: nobody answered.
    pub async fn request(
        self: &Arc<Self>,
        message: Publish<'_>,
        patience: Duration,
    ) -> Result<Message, RequestError> {
        let inbox = format!("_INBOX.{:016x}{:016x}", random::u64(), random::u64());
        let answers = self.messages(inbox.as_bytes(), None);
        let mut answers = answers.expect("an inbox is a valid subject");
        let message = message.with_reply(Some(inbox.as_bytes()));
        let sent = self.publish(&message.with_origin(Origin::Program));
        if sent.delivered == 0 {
            return Err(RequestError::NoResponders);
        }
        match time::timeout(patience, answers.next()).await {
            Ok(Some(answer)) => Ok(answer),
            Ok(None) | Err(_) => Err(RequestError::TimedOut),
        }
    }
}

impl Messages {
    /// Ends after so many messages, counted from the beginning.
    pub fn unsubscribe_after(&self, max: u64) {
        self.subscription.set_max(max);
        if self.subscription.delivered() >= max {
            self.account.unsubscribe(&self.subscription);
            self.queue.end();
        }
    }

    /// Messages that were lost because those before them were not taken.
    #[must_use]
    pub fn missed(&self) -> u64 {
        self.queue.0.lock().missed
    }
}

impl Queue {
    fn end(&self) {
        let mut waiting = self.0.lock();
        waiting.ended = true;
        if let Some(reader) = waiting.reader.take() {
            reader.wake();
        }
    }
}

impl Sink for Queue {
    fn deliver(&self, subscription: &Subscription, message: &Publish<'_>) -> Delivered {
        let mut waiting = self.0.lock();
        let Some(last) = subscription.count() else {
            return Delivered::Refused;
        };
        waiting.ended |= last;
        if waiting.bytes + message.size() > caps::LOCAL_PENDING_BYTES {
            waiting.missed += 1;
        } else {
            waiting.bytes += message.size();
            waiting.messages.push_back(Message {
                subject: Bytes::copy_from_slice(message.subject),
                reply: message.reply.map(Bytes::copy_from_slice),
                headers: Bytes::copy_from_slice(message.headers),
                payload: Bytes::copy_from_slice(message.payload),
            });
        }
        let reader = waiting.reader.take();
        drop(waiting);
        if let Some(reader) = reader {
            reader.wake();
        }
        if last {
            Delivered::Last
        } else {
            Delivered::Accepted
        }
    }
}

impl Stream for Messages {
    type Item = Message;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Message>> {
        let mut waiting = self.queue.0.lock();
        if let Some(message) = waiting.messages.pop_front() {
            waiting.bytes -= message.headers.len() + message.payload.len();
            return Poll::Ready(Some(message));
        }
        if waiting.ended {
            return Poll::Ready(None);
        }
        waiting.reader = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for Messages {
    fn drop(&mut self) {
        self.account.unsubscribe(&self.subscription);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use halyard_runtime::task::block_on;

    use super::*;
    use crate::broker::Broker;

    #[test]
    fn messages_come_in_order_and_end_with_the_last() {
        let account = Broker::new().global();
        let mut messages = account.messages(b"a.*", None).unwrap();
        assert!(messages.next().now_or_never().is_none());
        messages.unsubscribe_after(2);
        for text in ["one", "two", "three"] {
            let publish = Publish::new(b"a.b", text.as_bytes()).with_reply(Some(b"r"));
            account.publish(&publish);
        }
        let taken: Vec<_> = messages
            .by_ref()
            .collect::<Vec<_>>()
            .now_or_never()
            .unwrap();
        assert_eq!(taken.len(), 2);
        assert_eq!(
            (&taken[1].payload[..], taken[1].reply.as_deref()),
            (&b"two"[..], Some(&b"r"[..]))
        );
        assert_eq!(account.counters().subscriptions, 0);
        drop(messages);
    }

    #[test]
    fn what_is_not_taken_is_bounded() {
        let account = Broker::new().global();
        let messages = account.messages(b"a", None).unwrap();
        let large = vec![0; caps::LOCAL_PENDING_BYTES / 3];
        for _ in 0..5 {
            account.publish(&Publish::new(b"a", &large));
        }
        assert_eq!(messages.missed(), 2);
        drop(messages);
        assert!(!account.interest(b"a"));
    }

    #[test]
    fn requests_are_answered_or_not() {
        let account = Broker::new().global();
        let patience = Duration::from_millis(20);
        block_on(1, async {
            let refused = account
                .request(Publish::new(b"echo", b"hi"), patience)
                .await;
            assert_eq!(refused, Err(RequestError::NoResponders));
            let mut requests = account.messages(b"echo", None).unwrap();
            let late = account
                .request(Publish::new(b"echo", b"hi"), patience)
                .await;
            assert_eq!(late, Err(RequestError::TimedOut));
            requests.next().await;
            let serve = async {
                let request = requests.next().await.unwrap();
                account.publish(&Publish::new(&request.reply.unwrap(), &request.payload));
            };
            let ask = account.request(Publish::new(b"echo", b"hi"), Duration::from_secs(10));
            let (answer, ()) = futures::future::join(ask, serve).await;
            assert_eq!(&answer.unwrap().payload[..], b"hi");
        })
        .unwrap();
    }
}

//! Messages that end by themselves: published with life spans, read back for the time that the server gave them, looked for
//! again later.
//!
//! Time is the server's own, as it stands in its messages: it only goes forward, whatever its clocks do. What is missing at
//! one moment is judged by a message that was stored afterwards.

use std::sync::Arc;
use std::time::Duration;

use halyard_net::proto::headers;
use halyard_runtime::time::sleep;
use halyard_runtime::{event, random};
use serde_json::Value;

use super::{Stage, pause, percent};
use crate::checkers::MortalView;
use crate::client::Client;
use crate::director;
use crate::history::{Life, Outcome, Span};
use crate::js::{self, Failure};

const PATIENCE: Duration = Duration::from_secs(3);
/// How long the server may take to remove what has ended, when nothing is broken.
const GRACE: Duration = Duration::from_secs(4);
/// Most messages of one stream in one run.
const LIVES_MAX: usize = 2_000;

/// Works until the run ends.
pub(crate) async fn run(stage: Arc<Stage>, mortal: usize) {
    let plan = stage.options.mortals[mortal].clone();
    let mut client = stage.connect().await;
    // A subject with a publish of which nothing is known is left behind: one of each generation is in use.
    let mut generations = vec![0_u64; usize::try_from(plan.subjects).unwrap_or(1)];
    for _ in 0..LIVES_MAX {
        if stage.is_stopped() {
            return;
        }
        if client.is_closed() {
            client = stage.connect().await;
        }
        let pick = usize::try_from(random::below(plan.subjects)).unwrap_or(0);
        let subject = format!("{}.{pick}.{}", plan.name, generations[pick]);
        let (number, known) = publish(&stage, &client, mortal, &subject, span()).await;
        if !known {
            generations[pick] += 1;
        }
        event!("life {number} in {subject}: known {known}");
        if percent(30) {
            look(&stage, &client, mortal).await;
        }
        pause(plan.pause).await;
    }
}

fn span() -> Span {
    match random::below(10) {
        0..3 => Span::Stream,
        3..9 => Span::Seconds(1 + random::below(5)),
        _ => Span::Forever,
    }
}

/// Publishes and reads the time back; the number of the life, and whether the outcome is known.
async fn publish(
    stage: &Stage,
    client: &Client,
    mortal: usize,
    subject: &str,
    span: Span,
) -> (usize, bool) {
    let number = {
        let mut history = stage.history.lock();
        history.lives.push(Life {
            stream: mortal,
            subject: subject.to_owned(),
            span,
            outcome: Outcome::Unknown,
            seq: 0,
            time: None,
            gone_by: None,
        });
        history.lives.len() - 1
    };
    let text = match span {
        Span::Stream => None,
        Span::Seconds(seconds) => Some(seconds.to_string()),
        Span::Forever => Some("never".to_owned()),
    };
    let block = text.and_then(|text| {
        let block = headers::Builder::new()
            .header(b"Nats-TTL", text.as_bytes())
            .ok()?;
        Some(block.finish())
    });
    let payload = number.to_string();
    let answer = client
        .request(
            subject,
            &block.unwrap_or_default(),
            payload.as_bytes(),
            PATIENCE,
        )
        .await;
    let result = match answer {
        Ok(answer) => js::result(&answer),
        Err(unknown) => Err(unknown.into()),
    };
    let seq = match result {
        Ok(ack) => ack.get("seq").and_then(Value::as_u64).unwrap_or(0),
        Err(Failure::Refused(code, text)) => {
            let mut history = stage.history.lock();
            history.lives[number].outcome = Outcome::Refused(format!("{code} {text}"));
            return (number, true);
        }
        Err(Failure::Unknown) => return (number, false),
    };
    {
        let mut history = stage.history.lock();
        let order = history.tick();
        let life = &mut history.lives[number];
        (life.outcome, life.seq) = (Outcome::Done { order }, seq);
    }
    let name = stage.options.mortals[mortal].name.clone();
    if let Ok(Some(stored)) = js::message(client, &name, seq).await {
        stage.history.lock().lives[number].time = Some(stored.time);
    }
    (number, true)
}

/// The server's time: that of a message that is stored now.
async fn server_time(stage: &Stage, client: &Client, mortal: usize) -> Option<i64> {
    let subject = format!("{}.time", stage.options.mortals[mortal].name);
    let (number, _) = publish(stage, client, mortal, &subject, Span::Stream).await;
    stage.history.lock().lives[number].time
}

/// Looks for some message that was there; if it is not, notes by when that was so.
async fn look(stage: &Stage, client: &Client, mortal: usize) {
    let name = stage.options.mortals[mortal].name.clone();
    let draw = random::u64();
    let found = {
        let history = stage.history.lock();
        let known = history.lives.iter().enumerate().filter(|(_, life)| {
            life.stream == mortal && life.time.is_some() && life.gone_by.is_none()
        });
        let known: Vec<(usize, u64)> = known.map(|(number, life)| (number, life.seq)).collect();
        // The younger ones are the interesting ones.
        let recent = known.len().min(12) as u64;
        let back = draw
            .checked_rem(recent)
            .and_then(|back| usize::try_from(back).ok());
        back.and_then(|back| known.get(known.len() - 1 - back).copied())
    };
    let Some((number, seq)) = found else {
        return;
    };
    if let Ok(None) = js::message(client, &name, seq).await
        && let Some(time) = server_time(stage, client, mortal).await
    {
        event!("life {number} is gone by {time}");
        stage.history.lock().lives[number].gone_by = Some(time);
    }
}

/// Reads the stream in the end, with the server's time before and after.
pub(crate) async fn look_at(
    stage: &Stage,
    client: &Client,
    mortal: usize,
) -> Result<Option<MortalView>, Failure> {
    let name = stage.options.mortals[mortal].name.clone();
    match js::stream_info(client, &name).await {
        Err(Failure::Refused(js::STREAM_NOT_FOUND, _)) => return Ok(None),
        other => other?,
    };
    let before = server_time(stage, client, mortal)
        .await
        .ok_or(Failure::Unknown)?;
    sleep(GRACE).await;
    // What is stored behind the last message that the information names is not read.
    let begun = server_time(stage, client, mortal)
        .await
        .ok_or(Failure::Unknown)?;
    let info = js::stream_info(client, &name).await?;
    let view = director::read_stream(client, &name, &info).await?;
    let first_unseen = stage.history.lock().lives.len();
    let after = server_time(stage, client, mortal)
        .await
        .ok_or(Failure::Unknown)?;
    Ok(Some(MortalView {
        before,
        begun,
        after,
        first_unseen,
        messages: view.messages,
    }))
}

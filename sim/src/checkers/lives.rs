//! A message is there until its age or its own life span says that it ends, and not much longer. When nothing of a subject
//! is left, a marker says so, once, for as long as markers live.
//!
//! Times are those of the server's own messages, which only go forward, so its clocks may do what they like.

use std::collections::{BTreeMap, BTreeSet};

use super::{Evidence, Findings, MortalView};
use crate::history::{Life, Outcome, Span};
use crate::js::Stored;
use crate::options::MortalPlan;

const SECOND: i64 = 1_000_000_000;
/// How long after the end of a message its marker may come, when nothing is broken.
const TICK: i64 = SECOND / 10;

pub(super) fn check(evidence: &Evidence, findings: &mut Findings) {
    let plans = evidence.options.mortals.iter().zip(&evidence.mortals);
    for (stream, (plan, view)) in plans.enumerate() {
        let Some(view) = view else {
            findings.add(format!("the stream {} is gone", plan.name));
            continue;
        };
        let lives = evidence.history.lives.iter().enumerate();
        let scene = Scene {
            plan,
            view,
            lives: lives
                .filter(|(_, life)| life.stream == stream)
                .filter(|(number, _)| *number < view.first_unseen)
                .collect(),
        };
        scene.nothing_ends_early(findings);
        scene.what_is_there_may_be_there(findings);
        scene.markers_have_a_reason(findings);
        scene.what_ended_is_marked(findings);
    }
}

struct Scene<'a> {
    plan: &'a MortalPlan,
    view: &'a MortalView,
    /// With their numbers.
    lives: BTreeMap<usize, &'a Life>,
}

impl Scene<'_> {
    fn marker_nanos(&self) -> i64 {
        nanos(self.plan.marker)
    }

    /// When a message of this span that was stored at `time` ends; `None` for never.
    fn end(&self, span: Span, time: i64) -> Option<i64> {
        let age = Some(nanos(self.plan.max_age)).filter(|age| *age > 0);
        let own = match span {
            Span::Forever => return None,
            Span::Stream => None,
            // A message lives as long as a marker, so that it cannot hide behind an older one.
            Span::Seconds(seconds) => {
                let own = i64::try_from(seconds).unwrap_or(i64::MAX) * SECOND;
                let least = if self.plan.one_per_subject {
                    0
                } else {
                    self.marker_nanos()
                };
                Some(own.max(least))
            }
        };
        let span = age.into_iter().chain(own).min()?;
        Some(time + span)
    }

    /// Whether a newer message of its subject has, or may have, taken its place.
    fn is_replaced(&self, life: &Life) -> bool {
        self.plan.one_per_subject
            && self.lives.values().any(|other| {
                other.subject == life.subject
                    && match other.outcome {
                        Outcome::Done { .. } => other.seq > life.seq,
                        Outcome::Unknown => true,
                        Outcome::Refused(_) => false,
                    }
            })
    }

    fn nothing_ends_early(&self, findings: &mut Findings) {
        for (number, life) in &self.lives {
            let is_gone = !self.view.messages.contains_key(&life.seq);
            let gone_by = life.gone_by.or(is_gone.then_some(self.view.after));
            let (Some(time), Some(gone_by)) = (life.time, gone_by) else {
                continue;
            };
            let end = self.end(life.span, time);
            if end.is_none_or(|end| gone_by < end) && !self.is_replaced(life) {
                findings.add(format!(
                    "life {number} ({:?}) was stored at {time} as {}, ends at {end:?} and was gone by {gone_by}",
                    life.span, life.seq
                ));
            }
        }
    }

    fn what_is_there_may_be_there(&self, findings: &mut Findings) {
        for (seq, stored) in &self.view.messages {
            let end = if is_marker(stored) {
                let age = nanos(self.plan.max_age);
                let life = self.marker_nanos();
                Some(stored.time + if age > 0 { life.min(age) } else { life })
            } else {
                let number = std::str::from_utf8(&stored.payload).ok();
                let number = number.and_then(|text| text.parse::<usize>().ok());
                let life = number.and_then(|number| self.lives.get(&number));
                let Some(life) = life.filter(|life| life.subject == stored.subject) else {
                    findings.add(format!("{} {seq} was published by nobody", self.plan.name));
                    continue;
                };
                self.end(life.span, stored.time)
            };
            if end.is_some_and(|end| end <= self.view.before) {
                findings.add(format!(
                    "{} {seq} was stored at {}, ended at {end:?} and is there after {}",
                    self.plan.name, stored.time, self.view.before
                ));
            }
        }
    }

    fn markers_have_a_reason(&self, findings: &mut Findings) {
        let seconds = self.plan.marker.as_secs();
        let age = match (seconds / 3600, seconds % 3600) {
            (0, seconds) => format!("{seconds}s"),
            (hours, _) => format!("{hours}h0m0s"),
        };
        let block = format!(
            "NATS/1.0\r\nNats-Marker-Reason: MaxAge\r\nNats-TTL: {age}\r\nNats-Rollup: sub\r\n\r\n"
        );
        for (seq, marker) in self
            .view
            .messages
            .iter()
            .filter(|(_, stored)| is_marker(stored))
        {
            if seconds == 0 || marker.headers != block || !marker.payload.is_empty() {
                findings.add(format!("a marker that no such stream stores: {marker:?}"));
            }
            let of = |life: &&&Life| life.subject == marker.subject;
            let mut below = self.view.messages.range(..*seq);
            if below.any(|(_, stored)| stored.subject == marker.subject) {
                findings.add(format!(
                    "marker {seq} stands behind a message of {}",
                    marker.subject
                ));
            }
            let mut before = self
                .lives
                .values()
                .filter(of)
                .filter(|life| life.seq < *seq);
            let ended = before.any(|life| match (&life.outcome, life.time) {
                (Outcome::Refused(_), _) => false,
                (_, Some(time)) => self
                    .end(life.span, time)
                    .is_some_and(|end| end <= marker.time),
                // Not known when: any time.
                (_, None) => life.span != Span::Forever,
            });
            if !ended {
                findings.add(format!("marker {seq} of {} has no reason", marker.subject));
            }
        }
    }

    fn what_ended_is_marked(&self, findings: &mut Findings) {
        if self.plan.marker.is_zero() {
            return;
        }
        let there: BTreeSet<&str> = self
            .view
            .messages
            .values()
            .map(|stored| stored.subject.as_str())
            .collect();
        let mut subjects: BTreeMap<&str, Vec<&Life>> = BTreeMap::new();
        for life in self.lives.values() {
            subjects.entry(&life.subject).or_default().push(life);
        }
        for (subject, lives) in subjects {
            if there.contains(subject) {
                continue;
            }
            let mut ends = Vec::new();
            for life in lives {
                match (&life.outcome, life.time) {
                    (Outcome::Refused(_), _) => {}
                    (Outcome::Done { .. }, Some(_)) if self.is_replaced(life) => {}
                    (Outcome::Done { .. }, Some(time)) => ends.push(self.end(life.span, time)),
                    // What is not known may have ended later.
                    _ => ends.push(None),
                }
            }
            // The marker came when the last one ended, or later.
            let Some(ends) = ends.into_iter().collect::<Option<Vec<i64>>>() else {
                continue;
            };
            let Some(last) = ends.into_iter().max() else {
                continue;
            };
            let age = Some(nanos(self.plan.max_age)).filter(|age| *age > 0);
            let life = age
                .into_iter()
                .chain([self.marker_nanos()])
                .min()
                .unwrap_or(0);
            // One that ended while the stream was read left its marker behind what was read.
            if last + TICK <= self.view.begun && self.view.after < last + life {
                findings.add(format!(
                    "{subject} ended at {last}; its marker lives until {} and is not there at {}",
                    last + life,
                    self.view.after
                ));
            }
        }
    }
}

fn is_marker(stored: &Stored) -> bool {
    stored
        .headers
        .starts_with(b"NATS/1.0\r\nNats-Marker-Reason:")
}

fn nanos(duration: std::time::Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

//! Both trees read in step, for trees that are not held in memory.
//!
//! ```text
//! old units ─► chunks, digests ─► index, units held ─┐
//! new units, a little behind ─► matching ◄───────────┘─► drafts ─► second look ─► groups
//! ```
//!
//! Most of a new tree stands near where it stood in the old one. So a unit of the new tree is matched
//! while the old bytes around its counterpart are in memory ([`first_look`]); what is found nowhere in
//! the old tree so far is kept as a draft, and looked up again once all of the old tree was read. What
//! has no counterpart, and what is left when much was found nowhere, is not read before that. Where
//! much is left even then, and the preset allows, the old tree is read once more for short agreements
//! with that ([`second_look`]). So each byte is read once, but for such a search, for old bytes that stood
//! elsewhere, for drafts that do not fit into memory, which are matched a second time from the file, and
//! for executables: each that changed is loaded together with its counterpart, as long as both fit
//! ([`write`]).

mod completion;
mod first_look;
mod second_look;
mod write;

use std::sync::Arc;

use super::DiffReport;
use super::effort::Effort;
use super::known::Known;
use super::old::OldImage;
use super::output::Output;
use super::pairs::{Sightings, pairs};
use super::plan::Plan;
use super::unit::UnitMatcher;
use crate::error::Result;
use crate::format::PatchWriter;
use crate::image::Image;
use crate::job::{Job, Phase};
use completion::Completion;
use first_look::first_look;
use second_look::second_look;
use write::Step;

/// Reads both trees and writes the groups that make the new one.
pub(super) async fn run(
    job: &Job,
    old: Image,
    new: Image,
    effort: Effort,
    plan: &Plan,
    output: Output,
    report: &mut DiffReport,
) -> Result<PatchWriter> {
    let sightings = Sightings::new(pairs(&old, &new).await?);
    let (first, most) = plan.old_units;
    let held = OldImage::in_units(old, job.handle.clone(), first, most);
    let known = Arc::new(Known::new(held, &new, plan));
    let mut drafts = first_look(job, &new, &known, &sightings, effort, plan).await?;
    job.enter(Phase::Match);
    let pairs = sightings.all().iter().copied();
    let pairs: Vec<_> = pairs.filter(|pair| sightings.hold_some(pair)).collect();
    let files = pairs.iter().map(|pair| new.layout.files[pair.new as usize].image.clone());
    let matcher = UnitMatcher::new(new.clone(), known.clone(), files.collect(), effort);
    for (unit, draft) in new.layout.units().zip(&mut drafts) {
        if matcher.executable_at(&unit).is_some() {
            draft.kept = None;
        }
    }
    let completion = Completion::new(job, new.clone(), matcher);
    let (drafts, completion) =
        second_look(job, &known, drafts, completion, effort, plan, report).await?;
    Step { job, new, known, effort, plan, output, report }.write(drafts, pairs, completion).await
}

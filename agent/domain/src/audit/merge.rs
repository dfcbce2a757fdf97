//! Merges the nodes' rows by (wall, logic, origin), bounded by what is fed.

use super::judge::{Held, Judge};
use super::report::AuditReport;
use super::row::{Page, PageRow};
use super::{Boundaries, Source};
use std::cmp::Ordering;
use std::collections::{BTreeMap, VecDeque};

/// Why a page was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FeedError {
    /// A row comes before the one that was there.
    #[error("{0} gave its events out of order, so that they cannot be compared")]
    OutOfOrder(String),
    /// A row names what is not there.
    #[error("{0} gave a page that makes no sense")]
    Malformed(String),
}

/// Compares nodes while their rows stream by.
#[derive(Debug)]
pub struct Audit {
    feeds: Vec<Feed>,
    judge: Judge,
}

#[derive(Debug, Default)]
struct Feed {
    pages: VecDeque<Page>,
    /// The next row of the first page.
    next: usize,
    ended: bool,
}

type Place = (i64, i32, u32);

impl Feed {
    fn front(&self) -> Option<&PageRow> {
        self.pages.front()?.rows.get(self.next)
    }

    /// True when the rows of the next moment are all there.
    fn is_ready(&self) -> bool {
        let last = self.pages.back().and_then(|page| page.rows.last());
        self.ended
            || self
                .front()
                .zip(last)
                .is_some_and(|(front, last)| place(front) != place(last))
    }
}

fn place(row: &PageRow) -> Place {
    (row.wall, row.logic, row.origin)
}

impl Audit {
    /// Begins. Events before `since_wall_ms` must not be fed.
    pub fn new(sources: Vec<Source>, since_wall_ms: i64) -> Self {
        Self {
            feeds: sources.iter().map(|_| Feed::default()).collect(),
            judge: Judge::new(sources, since_wall_ms),
        }
    }

    /// A source from which a page is needed to go on; none: all have ended.
    pub fn hungry(&self) -> Option<usize> {
        self.feeds.iter().position(|feed| !feed.is_ready())
    }

    /// Takes the next page of a source, and judges whatever can be judged now.
    ///
    /// # Errors
    /// [`FeedError`]; the audit is of no further use then.
    pub fn feed(&mut self, source: usize, mut page: Page) -> Result<(), FeedError> {
        self.take_over(source, &mut page)?;
        if !page.rows.is_empty() {
            self.feeds[source].pages.push_back(page);
        }
        self.advance();
        Ok(())
    }

    /// Takes note that a source has no more rows, and of its boundaries as they are now.
    pub fn end(&mut self, source: usize, boundaries: Option<Boundaries>) {
        self.feeds[source].ended = true;
        self.judge.boundaries_after(source, boundaries);
        self.advance();
    }

    /// As [`Self::end`] where the source has more rows than were read: what its clock names may be
    /// among them.
    pub fn end_early(&mut self, source: usize, boundaries: Option<Boundaries>) {
        self.judge.trust_no_clock_of(source);
        self.end(source, boundaries);
    }

    /// Says what origins outside the sources declare to write, so that their chains can be judged, too.
    pub fn with_writers(mut self, declared: &BTreeMap<String, Vec<String>>) -> Self {
        self.judge.know_writers(declared);
        self
    }

    /// The outcome, once all sources have ended.
    pub fn finish(self) -> AuditReport {
        self.judge.finish()
    }

    /// Turns the names of a page into numbers, and looks at its order.
    fn take_over(&mut self, source: usize, page: &mut Page) -> Result<(), FeedError> {
        let names = |judge: &mut Judge, of: fn(&PageRow) -> u32, as_origin: bool, page: &Page| {
            let mut numbers = vec![u32::MAX; page.names.len()];
            for row in &page.rows {
                let at = of(row) as usize;
                let number = numbers.get_mut(at)?;
                if *number == u32::MAX {
                    *number = judge.number(&page.names[at], as_origin);
                }
            }
            Some(numbers)
        };
        let malformed = || FeedError::Malformed(self.judge.name(source).to_owned());
        let mut ends = page.rows.iter().map(|row| row.key_end as usize);
        // An end beyond the keys is no boundary either.
        let is_end = |end: usize| page.keys.is_char_boundary(end);
        if !ends.clone().is_sorted() || !ends.all(is_end) {
            return Err(malformed());
        }
        let origins = names(&mut self.judge, |row| row.origin, true, page);
        let collections = names(&mut self.judge, |row| row.collection, false, page);
        let (Some(origins), Some(collections)) = (origins, collections) else {
            return Err(FeedError::Malformed(self.judge.name(source).to_owned()));
        };
        for row in &mut page.rows {
            row.origin = origins[row.origin as usize];
            row.collection = collections[row.collection as usize];
        }
        let last = self.feeds[source].pages.back();
        let before = last.and_then(|page| page.rows.last());
        let rows = before.into_iter().chain(&page.rows);
        if !rows.is_sorted_by(|a, b| self.order(place(a), place(b)).is_le()) {
            return Err(FeedError::OutOfOrder(self.judge.name(source).to_owned()));
        }
        self.judge.begin(source, page);
        Ok(())
    }

    fn order(&self, a: Place, b: Place) -> Ordering {
        (a.0, a.1).cmp(&(b.0, b.1)).then_with(|| {
            if a.2 == b.2 {
                Ordering::Equal
            } else {
                self.judge.origin(a.2).cmp(self.judge.origin(b.2))
            }
        })
    }

    fn advance(&mut self) {
        while self.feeds.iter().all(Feed::is_ready) {
            let fronts = self.feeds.iter().filter_map(Feed::front).map(place);
            let Some(least) = fronts.min_by(|a, b| self.order(*a, *b)) else {
                return;
            };
            let mut group = Vec::with_capacity(self.feeds.len());
            let mut taken = vec![0; self.feeds.len()];
            for (source, feed) in self.feeds.iter().enumerate() {
                let mut at = feed.next;
                for page in &feed.pages {
                    let rows = page.rows[at..].iter().enumerate();
                    let same = rows.take_while(|(_, row)| place(row) == least);
                    let before = group.len();
                    group.extend(same.map(|(offset, row)| Held {
                        source,
                        row,
                        key: page.key(at + offset),
                    }));
                    let found = group.len() - before;
                    taken[source] += found;
                    if found < page.rows.len() - at {
                        break;
                    }
                    at = 0;
                }
            }
            self.judge.look_at(&group);
            for (feed, taken) in self.feeds.iter_mut().zip(taken) {
                feed.next += taken;
                while feed
                    .pages
                    .front()
                    .is_some_and(|page| feed.next >= page.rows.len())
                {
                    let gone = feed.pages.pop_front();
                    feed.next -= gone.map_or(0, |page| page.rows.len());
                }
            }
        }
    }
}

//! Triggers that whoever watches the site by other means raises: a file in a folder, named after the
//! trigger, with the cause in it. The trigger is over once the file is gone.

use cbddc_domain::trigger::Trigger;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

/// The longest cause, in bytes; the rest of the file does not count.
const CAUSE_BYTES_MAX: u64 = 400;

/// What is raised in `folder`.
pub(crate) fn raised_in(folder: &Path) -> BTreeMap<Trigger, String> {
    let raised = |trigger: Trigger| Some((trigger, read(&folder.join(trigger.word()))?));
    Trigger::ALL.into_iter().filter_map(raised).collect()
}

fn read(path: &Path) -> Option<String> {
    let mut bytes = Vec::new();
    let file = File::open(path).ok()?;
    file.take(CAUSE_BYTES_MAX).read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let clean = text
        .trim()
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c });
    let cause: String = clean.collect();
    Some(if cause.is_empty() {
        "raised without a cause".to_owned()
    } else {
        cause
    })
}

//! When a certificate is to be renewed.

/// Certificates count from this long before they are issued, in seconds: clocks of hosts differ.
pub const BACKDATED_S: i64 = 24 * 3600;

/// Whether it is time for a new certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewal {
    /// Less than two thirds of its life have passed.
    NotYet,
    /// It counts, but comes from an authority that is being replaced: one of the newest is wanted as
    /// soon as an issuer has it.
    Superseded,
    /// Time for a new one.
    Due,
    /// It counts no more; a member may renew it all the same.
    Expired,
}

/// Judges a certificate by its times and the time now, all in Unix seconds, and by whether it comes
/// from the mesh's newest root authority.
pub fn renewal(not_before_s: i64, not_after_s: i64, now_s: i64, newest: bool) -> Renewal {
    let issued_s = not_before_s.saturating_add(BACKDATED_S).min(not_after_s);
    let life_s = not_after_s.saturating_sub(issued_s);
    let due_s = issued_s.saturating_add(life_s / 3 * 2);
    if now_s > not_after_s {
        Renewal::Expired
    } else if now_s >= due_s {
        Renewal::Due
    } else if newest {
        Renewal::NotYet
    } else {
        Renewal::Superseded
    }
}

/// Whether a new certificate is worth having: one that was only superseded must come from the newest
/// authority, or it would be renewed again and again.
pub fn improves(why: Renewal, new_is_newest: bool) -> bool {
    match why {
        Renewal::NotYet => false,
        Renewal::Superseded => new_is_newest,
        Renewal::Due | Renewal::Expired => true,
    }
}

#[cfg(test)]
mod tests {
    use super::{BACKDATED_S, Renewal, improves, renewal};

    fn after(days: i64, newest: bool) -> Renewal {
        let day = 24 * 3600;
        let issued = 1_700_000_000;
        let (from, until) = (issued - BACKDATED_S, issued + 90 * day);
        renewal(from, until, issued + days * day, newest)
    }

    #[test]
    fn a_certificate_is_renewed_at_two_thirds_of_its_life() {
        for (days, renewal) in [
            (-1, Renewal::NotYet),
            (0, Renewal::NotYet),
            (59, Renewal::NotYet),
            (60, Renewal::Due),
            (90, Renewal::Due),
            (91, Renewal::Expired),
        ] {
            assert_eq!(after(days, true), renewal, "after {days} days");
        }
    }

    #[test]
    fn a_certificate_of_an_authority_that_is_replaced_is_renewed_at_once() {
        for (days, renewal) in [
            (0, Renewal::Superseded),
            (59, Renewal::Superseded),
            (60, Renewal::Due),
            (91, Renewal::Expired),
        ] {
            assert_eq!(after(days, false), renewal, "after {days} days");
        }
        assert!(improves(Renewal::Superseded, true));
        assert!(!improves(Renewal::Superseded, false), "nothing is gained");
        assert!(improves(Renewal::Due, false), "better than none");
        assert!(!improves(Renewal::NotYet, true));
    }
}

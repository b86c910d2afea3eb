//! Extending an agreement as long as most bytes agree: each equal byte counts one, each other one
//! costs more, and it ends where it was worth most (X-drop, after BLAST, Altschul et al. 1990).

/// How much a mismatch costs, and how far the score may fall before giving up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scoring {
    pub(crate) mismatch: i32,
    pub(crate) drop: i32,
}

/// How far an agreement goes, and what it is worth.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) length: usize,
    pub(crate) score: i32,
}

fn load(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"))
}

/// From the starts of both on.
pub(crate) fn forward(new: &[u8], old: &[u8], scoring: Scoring) -> Extent {
    let end = new.len().min(old.len());
    let (new, old) = (&new[..end], &old[..end]);
    let mut best = Extent::default();
    let (mut score, mut at) = (0i32, 0);
    while at < end {
        if at + 8 <= end {
            let differing = load(new, at) ^ load(old, at);
            if differing == 0 {
                at += 8;
                score = score.saturating_add(8);
                continue;
            }
            let equal = (differing.trailing_zeros() / 8) as usize;
            at += equal;
            score = score.saturating_add(equal as i32);
        } else if new[at] == old[at] {
            at += 1;
            score = score.saturating_add(1);
            continue;
        }
        if score > best.score {
            best = Extent { length: at, score };
        }
        score -= scoring.mismatch;
        at += 1;
        if score < best.score - scoring.drop {
            return best;
        }
    }
    if score > best.score {
        best = Extent { length: end, score };
    }
    best
}

/// From the ends of both backwards.
pub(crate) fn backward(new: &[u8], old: &[u8], scoring: Scoring) -> Extent {
    let end = new.len().min(old.len());
    let (new, old) = (&new[new.len() - end..], &old[old.len() - end..]);
    let mut best = Extent::default();
    let (mut score, mut done) = (0i32, 0);
    while done < end {
        let at = end - done;
        if at >= 8 {
            let differing = load(new, at - 8) ^ load(old, at - 8);
            if differing == 0 {
                done += 8;
                score = score.saturating_add(8);
                continue;
            }
            let equal = (differing.leading_zeros() / 8) as usize;
            done += equal;
            score = score.saturating_add(equal as i32);
        } else if new[at - 1] == old[at - 1] {
            done += 1;
            score = score.saturating_add(1);
            continue;
        }
        if score > best.score {
            best = Extent { length: done, score };
        }
        score -= scoring.mismatch;
        done += 1;
        if score < best.score - scoring.drop {
            return best;
        }
    }
    if score > best.score {
        best = Extent { length: end, score };
    }
    best
}

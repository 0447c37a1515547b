//! Patterns of KEYS, SCAN and CONFIG GET, with the rules of Redis's `stringmatchlen`: `*` any
//! bytes, `?` one byte, `[abc]` `[a-z]` `[^a]` one of or none of these, `\` the next byte itself.
//!
//! Always true here: the time is at most pattern length times text length (only the last `*` is
//! ever tried again), and there is no recursion.

/// Whether `text` as a whole matches `pattern`. `nocase` ignores the case of ASCII letters.
pub fn glob_matches(pattern: &[u8], text: &[u8], nocase: bool) -> bool {
    let (mut pattern_at, mut text_at) = (0, 0);
    // Behind the last `*`: where the pattern goes on, and where in the text that was tried.
    let mut retry: Option<(usize, usize)> = None;
    while text_at < text.len() {
        if pattern.get(pattern_at) == Some(&b'*') {
            pattern_at += 1;
            retry = Some((pattern_at, text_at));
            continue;
        }
        let (matched, element_bytes) = match_byte(&pattern[pattern_at..], text[text_at], nocase);
        if matched {
            pattern_at += element_bytes;
            text_at += 1;
            continue;
        }
        let Some((star_end, tried)) = retry else {
            return false;
        };
        // A trailing `*` takes the rest.
        if star_end == pattern.len() {
            return true;
        }
        pattern_at = star_end;
        text_at = tried + 1;
        retry = Some((star_end, tried + 1));
    }
    pattern[pattern_at..].iter().all(|&byte| byte == b'*')
}

/// Whether the first element of `pattern`, which is no `*`, matches `byte`; and its length. An
/// empty pattern matches nothing.
fn match_byte(pattern: &[u8], byte: u8, nocase: bool) -> (bool, usize) {
    match pattern {
        [] => (false, 0),
        [b'?', ..] => (true, 1),
        [b'[', class @ ..] => {
            let (matched, class_bytes) = match_class(class, byte, nocase);
            (matched, class_bytes + 1)
        }
        [b'\\', literal, ..] => (same(*literal, byte, nocase), 2),
        [literal, ..] => (same(*literal, byte, nocase), 1),
    }
}

/// `class` begins behind the `[`; an unclosed one ends with the pattern. Returns whether it
/// matches, and its length with the `]`.
fn match_class(class: &[u8], byte: u8, nocase: bool) -> (bool, usize) {
    let negated = class.first() == Some(&b'^');
    let mut at = usize::from(negated);
    let mut matched = false;
    loop {
        match &class[at..] {
            [] => break,
            [b'\\', literal, ..] => {
                matched |= *literal == byte;
                at += 2;
            }
            [b']', ..] => {
                at += 1;
                break;
            }
            [first, b'-', last, ..] => {
                matched |= in_range(*first, *last, byte, nocase);
                at += 3;
            }
            [literal, ..] => {
                matched |= same(*literal, byte, nocase);
                at += 1;
            }
        }
    }
    (matched != negated, at)
}

fn in_range(first: u8, last: u8, byte: u8, nocase: bool) -> bool {
    let (low, high) = (first.min(last), first.max(last));
    if nocase {
        let byte = byte.to_ascii_lowercase();
        low.to_ascii_lowercase() <= byte && byte <= high.to_ascii_lowercase()
    } else {
        low <= byte && byte <= high
    }
}

fn same(a: u8, b: u8, nocase: bool) -> bool {
    a == b || nocase && a.eq_ignore_ascii_case(&b)
}

#[cfg(test)]
mod tests {
    use super::glob_matches;

    /// Compared once with `KEYS` of redis-server 7.0.
    #[test]
    fn patterns_match_as_in_redis() {
        let cases: &[(&str, &str, bool)] = &[
            ("", "", true),
            ("", "a", false),
            ("*", "", true),
            ("*", "anything", true),
            ("a*", "a", true),
            ("*a", "bba", true),
            ("*a", "bab", false),
            ("a*b*c", "a1b2b3c", true),
            ("a*b*c", "a1b2b3", false),
            ("h?llo", "hello", true),
            ("h?llo", "hllo", false),
            ("?", "", false),
            ("h[ae]llo", "hallo", true),
            ("h[ae]llo", "hillo", false),
            ("h[^e]llo", "hallo", true),
            ("h[^e]llo", "hello", false),
            ("h[a-c]llo", "hbllo", true),
            ("h[c-a]llo", "hbllo", true),
            ("h[a-c]llo", "hdllo", false),
            ("[a-", "-", true),
            ("[a-", "a", true),
            ("[a", "a", true),
            ("[", "a", false),
            ("[^", "a", true),
            ("[]a", "a", false),
            ("[]", "]", false),
            ("[^]", "a", true),
            ("[\\]]", "]", true),
            ("[\\", "\\", true),
            ("[a\\-z]", "-", true),
            ("[a\\-z]", "b", false),
            ("[a-]]", "a]", false),
            ("[a-]]", "a", true),
            ("[a-]]", "b", false),
            ("\\*", "*", true),
            ("\\*", "a", false),
            ("\\", "\\", true),
            ("a\\", "a\\", true),
            ("a\\?", "a?", true),
            ("a**", "a", true),
            ("a**b", "axxb", true),
            ("[*]", "*", true),
            ("user:[0-9]*:[^x]", "user:12:y", true),
        ];
        for (pattern, text, expected) in cases {
            let matched = glob_matches(pattern.as_bytes(), text.as_bytes(), false);
            assert_eq!(matched, *expected, "{pattern} {text}");
        }
    }

    #[test]
    fn nocase_ignores_the_case_of_letters() {
        assert!(glob_matches(b"MAX*", b"maxmemory", true));
        assert!(glob_matches(b"[M-N]AX", b"max", true));
        assert!(glob_matches(b"[m]ax", b"MAX", true));
        assert!(!glob_matches(b"MAX*", b"maxmemory", false));
    }

    #[test]
    fn many_stars_do_not_blow_up() {
        let pattern = b"a*".repeat(5_000);
        let text = vec![b'a'; 20_000];
        assert!(glob_matches(&pattern, &text, false));
        let pattern = [&b"*a".repeat(200)[..], b"b"].concat();
        assert!(!glob_matches(&pattern, &text, false));
    }
}

//! Patterns of KEYS, SCAN and CONFIG GET.

/// Whether `text` as a whole matches `pattern`. `nocase` ignores the case of ASCII letters.
pub fn glob_matches(pattern: &[u8], text: &[u8], nocase: bool) -> bool {
    let _ = (pattern, text, nocase);
    todo!()
}

//! The texts of `tcc explain CODE`: one paragraph for each code that an error can carry.

/// A code and what it means.
pub struct Explanation {
    pub code: &'static str,
    pub title: &'static str,
    pub text: &'static str,
}

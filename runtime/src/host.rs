//! What this machine's processor can do, by the feature names of our targets.

/// Names of the features the operating system and the processor offer, in no order that matters.
///
/// Unknown processors offer none beyond their target's baseline.
pub fn features() -> Vec<&'static str> {
    let mut found = Vec::new();
    #[cfg(target_arch = "x86_64")]
    {
        // The target's names group what its kernels use together.
        if std::arch::is_x86_feature_detected!("avx512f")
            && std::arch::is_x86_feature_detected!("avx512bw")
            && std::arch::is_x86_feature_detected!("avx512dq")
            && std::arch::is_x86_feature_detected!("avx512vl")
            && std::arch::is_x86_feature_detected!("avx512cd")
        {
            found.push("avx512");
        }
        if std::arch::is_x86_feature_detected!("avx512vnni") {
            found.push("avx512vnni");
        }
        if std::arch::is_x86_feature_detected!("avx512vbmi") {
            found.push("avx512vbmi");
        }
        if std::arch::is_x86_feature_detected!("avxvnni") {
            found.push("avxvnni");
        }
    }
    #[cfg(target_arch = "aarch64")]
    {
        if std::arch::is_aarch64_feature_detected!("lse") {
            found.push("lse");
        }
        if std::arch::is_aarch64_feature_detected!("dotprod") {
            found.push("dotprod");
        }
        if std::arch::is_aarch64_feature_detected!("i8mm") {
            found.push("i8mm");
        }
        if std::arch::is_aarch64_feature_detected!("sve") {
            found.push("sve");
        }
        if std::arch::is_aarch64_feature_detected!("sve2") {
            found.push("sve2");
        }
    }
    found
}

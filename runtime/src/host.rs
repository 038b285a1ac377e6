//! What this machine's processor can do, by the feature names of our targets.

/// Names of the features the operating system and the processor offer this process, in no order that matters. Asks the
/// system for those that it grants to who asks.
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
        // Kernels with tiles unpack weights with the others.
        if ["avx512", "avx512vnni", "avx512vbmi"].iter().all(|name| found.contains(name)) && tiles::are_granted() {
            found.push("amxint8");
        }
        if found.contains(&"avx512") && is_zen4() {
            found.push("fetchl2");
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

/// True on AMD's family 19h; with AVX-512 that is Zen 4 (Processor Programming Reference, CPUID 1).
#[cfg(target_arch = "x86_64")]
fn is_zen4() -> bool {
    use std::arch::x86_64::__cpuid;
    let vendor = __cpuid(0);
    let is_amd = [vendor.ebx, vendor.edx, vendor.ecx] == [*b"Auth", *b"enti", *b"cAMD"].map(u32::from_le_bytes);
    let version = __cpuid(1).eax;
    let (family, extended) = (version >> 8 & 0xf, version >> 20 & 0xff);
    is_amd && vendor.eax >= 1 && family + extended == 0x19
}

/// The matrix extension of x86-64.
#[cfg(target_arch = "x86_64")]
mod tiles {
    /// Whether this process may use tiles, and they multiply bytes. Linux grants tiles to processes that ask
    /// (`Documentation/arch/x86/xstate.rst`).
    #[cfg(target_os = "linux")]
    pub fn are_granted() -> bool {
        const ARCH_REQ_XCOMP_PERM: libc::c_ulong = 0x1023;
        const XFEATURE_XTILEDATA: libc::c_ulong = 18;
        const AMX_INT8: u32 = 1 << 25;
        let has_leaf = std::arch::x86_64::__cpuid(0).eax >= 7;
        if !has_leaf || std::arch::x86_64::__cpuid_count(7, 0).edx & AMX_INT8 == 0 {
            return false;
        }
        // SAFETY: the call takes numbers alone, and only lets this process use more registers.
        unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0 }
    }

    #[cfg(not(target_os = "linux"))]
    pub fn are_granted() -> bool {
        false
    }
}

#include "vmm/cli/host_command.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <cstdio>
#include <string>
#include <vector>

#include "base/byte_io.h"
#include "base/json_writer.h"
#include "vmm/assist/host_probe.h"
#include "vmm/cli/host_verdict.h"
#include "vmm/cli/run_options.h"
#include "vmm/kvm/kvm.h"

namespace cube::vmm {
namespace {

struct Capability {
  const char* name;
  int number;
  bool required;
};

// What the VMM uses, and what later parts of the product will.
constexpr Capability kCapabilities[] = {
    {"KVM_CAP_IRQCHIP", KVM_CAP_IRQCHIP, true},
    {"KVM_CAP_USER_MEMORY", KVM_CAP_USER_MEMORY, true},
    {"KVM_CAP_SET_TSS_ADDR", KVM_CAP_SET_TSS_ADDR, true},
    {"KVM_CAP_PIT2", KVM_CAP_PIT2, true},
    {"KVM_CAP_IRQFD", KVM_CAP_IRQFD, true},
    {"KVM_CAP_IOEVENTFD", KVM_CAP_IOEVENTFD, true},
    {"KVM_CAP_IMMEDIATE_EXIT", KVM_CAP_IMMEDIATE_EXIT, true},
    {"KVM_CAP_XSAVE", KVM_CAP_XSAVE, true},
    {"KVM_CAP_XSAVE2", KVM_CAP_XSAVE2, false},
    {"KVM_CAP_XCRS", KVM_CAP_XCRS, true},
    {"KVM_CAP_ADJUST_CLOCK", KVM_CAP_ADJUST_CLOCK, true},
    {"KVM_CAP_TSC_DEADLINE_TIMER", KVM_CAP_TSC_DEADLINE_TIMER, false},
    {"KVM_CAP_SYNC_REGS", KVM_CAP_SYNC_REGS, false},
    {"KVM_CAP_X86_USER_SPACE_MSR", KVM_CAP_X86_USER_SPACE_MSR, false},
    {"KVM_CAP_X86_MSR_FILTER", KVM_CAP_X86_MSR_FILTER, false},
    {"KVM_CAP_SET_GUEST_DEBUG", KVM_CAP_SET_GUEST_DEBUG, false},
    {"KVM_CAP_DIRTY_LOG_RING", KVM_CAP_DIRTY_LOG_RING, false},
};

// What KVM must have for the assist layer.
bool IsAssistCapability(const Capability& capability) {
  return capability.number == KVM_CAP_X86_USER_SPACE_MSR ||
         capability.number == KVM_CAP_X86_MSR_FILTER ||
         capability.number == KVM_CAP_SET_GUEST_DEBUG;
}

struct HostReport {
  std::string kernel, processor;
  long cpus = 0;
  uint64_t memory_mib = 0;
  std::string kvm_error;
  std::string probe_error;
  std::vector<std::pair<Capability, int>> capabilities;
  HostProbe probe;
  std::string cgroups;
  bool btf = false, bpf_filesystem = false, tun = false, userfaultfd = false;
  bool usable = false;
  std::string verdict;
};

std::string Processor() {
  auto text = ReadSmallFile("/proc/cpuinfo");
  if (!text.ok()) return "unknown";
  size_t at = text->find("model name");
  if (at == std::string::npos) return "unknown";
  at = text->find(':', at);
  size_t end = text->find('\n', at);
  return text->substr(at + 2, end - at - 2);
}

std::string Cgroups() {
  constexpr long kCgroup2Magic = 0x63677270;
  struct statfs fs = {};
  if (statfs("/sys/fs/cgroup", &fs) == 0 && fs.f_type == kCgroup2Magic) return "v2";
  auto mounts = ReadSmallFile("/proc/mounts");
  if (mounts.ok() && mounts->find(" cgroup ") != std::string::npos) return "v1";
  auto controllers = ReadSmallFile("/proc/cgroups");
  return controllers.ok() && controllers->find("memory") != std::string::npos ? "not mounted"
                                                                              : "none";
}

bool Openable(const char* path) {
  UniqueFd fd(open(path, O_RDWR | O_CLOEXEC));
  return fd.valid();
}

std::string FirstMissing(const HostReport& report) {
  for (const auto& [capability, value] : report.capabilities) {
    bool required =
        capability.required || (report.probe.emulated_ring0() && IsAssistCapability(capability));
    if (required && value == 0) return capability.name;
  }
  return "";
}

void Decide(HostReport* report) {
  std::string missing = report->kvm_error.empty() ? FirstMissing(*report) : "";
  if (!report->kvm_error.empty()) {
    report->verdict = "VMs cannot run here: " + report->kvm_error;
  } else if (!report->probe_error.empty()) {
    report->verdict = "VMs cannot run here: " + report->probe_error;
  } else if (!missing.empty()) {
    report->verdict = "VMs cannot run here: KVM lacks " + missing;
  } else if (report->probe.emulated_ring0()) {
    report->usable = true;
    report->verdict = Format(
        "VMs run here, guest ring 0 by Cube's own engine: KVM only emulates it, at %.1f million "
        "instructions a second; guest user mode runs at full speed",
        1000 / report->probe.ring0_nanoseconds);
  } else {
    report->usable = true;
    report->verdict = "VMs run here at full speed: KVM runs guest ring 0 in hardware";
  }
}

HostReport Inspect() {
  HostReport report;
  utsname name = {};
  uname(&name);
  report.kernel = name.release;
  report.processor = Processor();
  report.cpus = sysconf(_SC_NPROCESSORS_ONLN);
  struct sysinfo info = {};
  sysinfo(&info);
  report.memory_mib = static_cast<uint64_t>(info.totalram) * info.mem_unit >> 20;
  auto kvm = Kvm::Open();
  if (kvm.ok()) {
    for (const Capability& capability : kCapabilities) {
      report.capabilities.emplace_back(capability, kvm->CheckExtension(capability.number));
    }
    auto probe = ProbeHost(*kvm);
    if (probe.ok()) {
      report.probe = *probe;
      HostVerdict(HostVerdict::DefaultPath(), "/dev/kvm").Store(probe->emulated_ring0());
    } else {
      report.probe_error = probe.error().message();
    }
  } else {
    report.kvm_error = kvm.error().message();
  }
  report.cgroups = Cgroups();
  report.btf = access("/sys/kernel/btf/vmlinux", R_OK) == 0;
  struct statfs fs = {};
  constexpr long kBpfMagic = 0xcafe4a11;
  report.bpf_filesystem = statfs("/sys/fs/bpf", &fs) == 0 && fs.f_type == kBpfMagic;
  report.tun = Openable("/dev/net/tun");
  report.userfaultfd = access("/proc/sys/vm/unprivileged_userfaultfd", F_OK) == 0;
  Decide(&report);
  return report;
}

void PrintJson(const HostReport& report) {
  JsonWriter json;
  json.BeginObject();
  json.Key("usable").Bool(report.usable).Key("verdict").String(report.verdict);
  json.Key("kernel").String(report.kernel).Key("processor").String(report.processor);
  json.Key("cpus").Int(report.cpus).Key("memory_mib").Uint(report.memory_mib);
  json.Key("kvm").BeginObject();
  json.Key("error");
  report.kvm_error.empty() ? json.Null() : json.String(report.kvm_error);
  json.Key("capabilities").BeginObject();
  for (const auto& [capability, value] : report.capabilities) json.Key(capability.name).Int(value);
  json.EndObject().EndObject();
  json.Key("ring0").BeginObject();
  bool probed = report.kvm_error.empty() && report.probe_error.empty();
  json.Key("mode").String(!probed                         ? "unknown"
                          : report.probe.emulated_ring0() ? "emulated"
                                                          : "native");
  json.Key("nanoseconds_per_instruction").Double(report.probe.ring0_nanoseconds);
  json.Key("user_nanoseconds_per_instruction").Double(report.probe.user_nanoseconds);
  json.EndObject();
  json.Key("cgroups").String(report.cgroups).Key("btf").Bool(report.btf);
  json.Key("bpf_filesystem").Bool(report.bpf_filesystem).Key("tun").Bool(report.tun);
  json.Key("userfaultfd").Bool(report.userfaultfd).EndObject();
  printf("%s\n", json.text().c_str());
}

void PrintText(const HostReport& report) {
  auto yes_no = [](bool value) { return value ? "yes" : "no"; };
  printf("%-14s %s, %ld CPUs, %llu MiB\n", "machine", report.processor.c_str(), report.cpus,
         static_cast<unsigned long long>(report.memory_mib));
  printf("%-14s Linux %s\n", "kernel", report.kernel.c_str());
  if (!report.kvm_error.empty()) {
    printf("%-14s %s\n", "KVM", report.kvm_error.c_str());
  } else {
    printf("%-14s API 12\n", "KVM");
    for (const auto& [capability, value] : report.capabilities) {
      printf("  %-28s %s\n", capability.name,
             value == 0 ? "no" : Format("yes (%d)", value).c_str());
    }
    printf("%-14s %s, %.2f ns an instruction; user mode %.2f ns\n", "ring 0",
           report.probe.emulated_ring0() ? "emulated" : "native", report.probe.ring0_nanoseconds,
           report.probe.user_nanoseconds);
  }
  printf("%-14s %s\n", "cgroups", report.cgroups.c_str());
  printf("%-14s BTF %s, bpf file system %s\n", "eBPF", yes_no(report.btf),
         yes_no(report.bpf_filesystem));
  printf("%-14s %s\n", "TUN", yes_no(report.tun));
  printf("%-14s %s\n", "userfaultfd", yes_no(report.userfaultfd));
  printf("\n%s.\n", report.verdict.c_str());
}

}  // namespace

int HostCommand(bool json) {
  HostReport report = Inspect();
  json ? PrintJson(report) : PrintText(report);
  return report.usable ? 0 : kStatusVmmError;
}

}  // namespace cube::vmm

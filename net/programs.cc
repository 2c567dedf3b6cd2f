#include "net/programs.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <linux/bpf.h>
#include <linux/magic.h>
#include <linux/stddef.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstdarg>
#include <cstring>
#include <filesystem>
#include <iterator>

#include "base/unique_fd.h"
#include "net/bpf/fabric6_bpf.skel.h"
#include "net/bpf/fabric_bpf.skel.h"
#include "net/bpf/fragments6_bpf.skel.h"

namespace cube::net {
namespace {

namespace fs = std::filesystem;

constexpr int kPriority = 1;
constexpr int kHandle = 1;
constexpr size_t kMaxLog = 1 << 16;
constexpr uint32_t kFewEntries = 64;  // of tables that nothing is entered in

// What libbpf says while it works, of which an error keeps what matters.
std::string* heard = nullptr;

int Hear(libbpf_print_level level, const char* format, va_list arguments) {
  if (heard == nullptr || level > LIBBPF_WARN) return 0;
  char line[4096];
  int size = vsnprintf(line, sizeof line, format, arguments);
  if (size > 0 && heard->size() < kMaxLog) heard->append(line);
  return size;
}

class Hearing {
 public:
  Hearing() {
    heard = &text_;
    libbpf_set_print(Hear);
  }
  ~Hearing() { heard = nullptr; }
  Hearing(const Hearing&) = delete;
  Hearing& operator=(const Hearing&) = delete;

  // The line that tells most: the verifier's last word before its totals, or libbpf's first.
  std::string Verdict() const {
    std::string last, first;
    size_t start = 0;
    bool in_log = false;
    while (start < text_.size()) {
      size_t end = std::min(text_.find('\n', start), text_.size());
      std::string line = text_.substr(start, end - start);
      start = end + 1;
      if (line.find("BEGIN PROG LOAD LOG") != std::string::npos) in_log = true;
      if (line.find("END PROG LOAD LOG") != std::string::npos) in_log = false;
      if (first.empty() && !line.empty()) first = line;
      bool is_total = line.starts_with("processed ") || line.starts_with("verification time") ||
                      line.starts_with("stack depth");
      if (in_log && !is_total && !line.empty()) last = line;
    }
    return last.empty() ? first : last;
  }

 private:
  std::string text_;
};

Status Probe() {
  struct {
    bpf_func_id helper;
    const char* name;
  } const kHelpers[] = {
      {BPF_FUNC_redirect_neigh, "bpf_redirect_neigh (Linux 5.10)"},
      {BPF_FUNC_check_mtu, "bpf_check_mtu (Linux 5.12)"},
      {BPF_FUNC_ktime_get_coarse_ns, "bpf_ktime_get_coarse_ns (Linux 5.11)"},
      {BPF_FUNC_ringbuf_reserve, "bpf_ringbuf_reserve (Linux 5.8)"},
  };
  struct {
    bpf_map_type type;
    const char* name;
  } const kMaps[] = {
      {BPF_MAP_TYPE_LPM_TRIE, "longest-prefix tries"},
      {BPF_MAP_TYPE_LRU_HASH, "LRU hashes"},
      {BPF_MAP_TYPE_RINGBUF, "ring buffers"},
  };
  Hearing hearing;
  // libbpf says no more than whether it is there.
  const bpf_insn kNothing[] = {{BPF_ALU64 | BPF_MOV | BPF_K, 0, 0, 0, 0},
                               {BPF_JMP | BPF_EXIT, 0, 0, 0, 0}};
  UniqueFd program(bpf_prog_load(BPF_PROG_TYPE_SCHED_CLS, nullptr, "GPL", kNothing,
                                 std::size(kNothing), nullptr));
  if (!program.valid() && errno == EPERM) {
    return Errorf("the network fabric needs CAP_BPF and CAP_NET_ADMIN (or root)");
  }
  if (!program.valid()) {
    return Errorf(
        "this host's kernel has no BPF programs for TC (CONFIG_BPF_SYSCALL, "
        "CONFIG_NET_CLS_BPF, CONFIG_NET_SCH_INGRESS)");
  }
  if (access("/sys/kernel/btf/vmlinux", R_OK) < 0) {
    return Errorf(
        "this host's kernel has no BTF (CONFIG_DEBUG_INFO_BTF): there is no "
        "/sys/kernel/btf/vmlinux");
  }
  for (const auto& map : kMaps) {
    if (libbpf_probe_bpf_map_type(map.type, nullptr) != 1) {
      return Errorf("this host's kernel has no BPF maps that are %s", map.name);
    }
  }
  for (const auto& helper : kHelpers) {
    if (libbpf_probe_bpf_helper(BPF_PROG_TYPE_SCHED_CLS, helper.helper, nullptr) != 1) {
      return Errorf("this host's kernel has no %s", helper.name);
    }
  }
  return OkStatus();
}

bool IsBpf(const std::string& path) {
  struct statfs info;
  return statfs(path.c_str(), &info) == 0 && static_cast<unsigned>(info.f_type) == BPF_FS_MAGIC;
}

// Where maps of this layout are pinned in `folder`.
Result<std::string> MakePlace(const std::string& folder) {
  std::error_code failed;
  fs::create_directories(folder, failed);
  if (failed || !IsBpf(folder)) {
    return Errorf("%s is not in a BPF file system (mount -t bpf bpf /sys/fs/bpf)", folder.c_str());
  }
  if (chmod(folder.c_str(), 0700) < 0) return ErrnoError("%s", folder.c_str());
  // What a fabric of another layout has left nobody can read.
  for (fs::directory_iterator entry(fs::path(folder), failed), end; !failed && entry != end;
       entry.increment(failed)) {
    if (entry->path().filename() == Format("v%d", CUBE_LAYOUT)) continue;
    std::error_code ignored;
    fs::remove_all(entry->path(), ignored);
  }
  std::string place = folder + Format("/v%d", CUBE_LAYOUT);
  if (mkdir(place.c_str(), 0700) < 0 && errno != EEXIST) return ErrnoError("%s", place.c_str());
  return place;
}

Status PinMap(bpf_map* map, const std::string& place, const char* suffix) {
  if (place.empty() || bpf_map__is_internal(map)) return OkStatus();
  std::string path = place + "/" + bpf_map__name(map) + suffix;
  if (bpf_map__set_pin_path(map, path.c_str()) != 0) return ErrnoError("%s", path.c_str());
  return OkStatus();
}

Status NotTaken(int failed, const Hearing& hearing) {
  errno = -failed;
  return ErrnoError("this host's kernel does not take the network programs: \"%.300s\"",
                    hearing.Verdict().c_str());
}

// Of both families' maps with these names each has its own.
bool IsOfFamily(const char* name) {
  for (const char* own : {"flows", "reverse", "rules", "fixed", "opened", "fragments"}) {
    if (strcmp(own, name) == 0) return true;
  }
  return false;
}

// Has a map be the one of that name of programs that were loaded before, if they have it.
Status ShareMap(bpf_map* map, const bpf_object* with) {
  const char* name = bpf_map__name(map);
  bpf_map* shared = bpf_object__find_map_by_name(with, name);
  if (shared == nullptr || bpf_map__is_internal(map)) return OkStatus();
  if (bpf_map__reuse_fd(map, bpf_map__fd(shared)) == 0) return OkStatus();
  return ErrnoError("sharing the network's map %s", name);
}

Status Attach(uint32_t index, bpf_tc_attach_point where, int program, uint32_t priority,
              const char* what) {
  DECLARE_LIBBPF_OPTS(bpf_tc_hook, hook);
  hook.ifindex = static_cast<int>(index);
  hook.attach_point = where;
  Hearing hearing;
  int made = bpf_tc_hook_create(&hook);
  if (made != 0 && made != -EEXIST) {
    errno = -made;
    return ErrnoError("%s: TC's clsact on interface %u", what, index);
  }
  DECLARE_LIBBPF_OPTS(bpf_tc_opts, options);
  options.prog_fd = program;
  options.handle = kHandle;
  options.priority = priority;
  options.flags = BPF_TC_F_REPLACE;
  int attached = bpf_tc_attach(&hook, &options);
  if (attached == 0) return OkStatus();
  errno = -attached;
  return ErrnoError("%s: attaching it to interface %u", what, index);
}

void Detach(uint32_t index, bpf_tc_attach_point where, uint32_t priority) {
  DECLARE_LIBBPF_OPTS(bpf_tc_hook, hook);
  hook.ifindex = static_cast<int>(index);
  hook.attach_point = where;
  DECLARE_LIBBPF_OPTS(bpf_tc_opts, options);
  options.handle = kHandle;
  options.priority = priority;
  Hearing hearing;
  bpf_tc_detach(&hook, &options);
}

}  // namespace

Result<std::unique_ptr<Programs>> Programs::Load(const std::string& folder, bool ipv6) {
  CUBE_TRY(Probe());
  Hearing hearing;
  fabric_bpf* skeleton = fabric_bpf__open();
  if (skeleton == nullptr) return ErrnoError("opening the network programs");
  std::unique_ptr<Programs> programs(new Programs(skeleton));
  std::string place;
  if (!folder.empty()) {
    CUBE_ASSIGN(place, MakePlace(folder));
  }
  bpf_map* map;
  bpf_object__for_each_map(map, skeleton->obj) { CUBE_TRY(PinMap(map, place, "")); }
  int loaded = fabric_bpf__load(skeleton);
  if (loaded != 0) return NotTaken(loaded, hearing).error();
  const auto& maps = skeleton->maps;
  programs->maps_ = {
      bpf_map__fd(maps.settings),  bpf_map__fd(maps.slots),    bpf_map__fd(maps.taps),
      bpf_map__fd(maps.near_taps), bpf_map__fd(maps.counters), bpf_map__fd(maps.reasons),
      bpf_map__fd(maps.flows),     bpf_map__fd(maps.reverse),  bpf_map__fd(maps.fragments),
      bpf_map__fd(maps.rules),     bpf_map__fd(maps.fixed),    bpf_map__fd(maps.opened),
      bpf_map__fd(maps.ports),     bpf_map__fd(maps.meters),   bpf_map__fd(maps.trace),
  };
  CUBE_ASSIGN(programs->slots_,
              Mapping::Map(CUBE_MAX_SLOTS * sizeof(bpf::slot), PROT_READ | PROT_WRITE, MAP_SHARED,
                           programs->maps_.slots, 0, "the table of slots"));
  CUBE_TRY(programs->LoadIpv6(place, ipv6));
  return programs;
}

// Programs that refuse all have tables of their own, so that none that matters is opened by them.
Status Programs::LoadIpv6(const std::string& place, bool carried) {
  Hearing hearing;
  skeleton6_ = fabric6_bpf__open();
  if (skeleton6_ == nullptr) return ErrnoError("opening the network programs for IPv6");
  bpf_map* map;
  bpf_object__for_each_map(map, skeleton6_->obj) {
    if (!IsOfFamily(bpf_map__name(map))) {
      CUBE_TRY(ShareMap(map, skeleton_->obj));
    } else if (carried) {
      CUBE_TRY(PinMap(map, place, "6"));
    } else {
      bpf_map__set_max_entries(map, kFewEntries);
    }
  }
  skeleton6_->rodata->carried = carried;
  int loaded = fabric6_bpf__load(skeleton6_);
  if (loaded != 0) return NotTaken(loaded, hearing);
  const auto& maps = skeleton6_->maps;
  if (carried) {
    maps6_ = {bpf_map__fd(maps.flows), bpf_map__fd(maps.reverse), bpf_map__fd(maps.rules),
              bpf_map__fd(maps.fixed), bpf_map__fd(maps.opened),  bpf_map__fd(maps.fragments)};
  }
  const auto& progs = skeleton6_->progs;
  CUBE_TRY(
      HandOver(bpf::FAMILY_SANDBOX, {progs.from_sandbox6, progs.from_world6, progs.from_host6}));
  if (carried) return LoadFragments();
  // Those of a daemon before this one.
  for (uint32_t which = bpf::FAMILY_SANDBOX_FRAGMENT; which < bpf::FAMILY_PROGRAMS; ++which) {
    bpf_map_delete_elem(families(), &which);
  }
  return OkStatus();
}

Status Programs::LoadFragments() {
  Hearing hearing;
  fragments6_ = fragments6_bpf__open();
  if (fragments6_ == nullptr) return ErrnoError("opening the network programs for fragments");
  bpf_map* map;
  bpf_object__for_each_map(map, fragments6_->obj) {
    bool is_of_family = IsOfFamily(bpf_map__name(map));
    CUBE_TRY(ShareMap(map, is_of_family ? skeleton6_->obj : skeleton_->obj));
  }
  int loaded = fragments6_bpf__load(fragments6_);
  if (loaded != 0) return NotTaken(loaded, hearing);
  const auto& progs = fragments6_->progs;
  return HandOver(
      bpf::FAMILY_SANDBOX_FRAGMENT,
      {progs.from_sandbox6_fragment, progs.from_world6_fragment, progs.from_host6_fragment});
}

Status Programs::HandOver(uint32_t first, const bpf_program* const (&programs)[3]) {
  uint32_t which = first;
  for (const bpf_program* one : programs) {
    int program = bpf_program__fd(one);
    if (bpf_map_update_elem(families(), &which, &program, BPF_ANY) != 0) {
      return ErrnoError("handing IPv6 over to its program");
    }
    ++which;
  }
  return OkStatus();
}

Programs::~Programs() {
  fragments6_bpf__destroy(fragments6_);
  fabric6_bpf__destroy(skeleton6_);
  fabric_bpf__destroy(skeleton_);
}

Status Programs::AttachSandbox(uint32_t tap) {
  return Attach(tap, BPF_TC_INGRESS, from_sandbox(), kPriority, "from_sandbox");
}

Status Programs::AttachUplink(uint32_t uplink) {
  CUBE_TRY(Attach(uplink, BPF_TC_INGRESS, early_filter(), kPriority, "early_filter"));
  return Attach(uplink, BPF_TC_INGRESS, from_world(), kPriority + 1, "from_world");
}

Status Programs::AttachHost(uint32_t device) {
  return Attach(device, BPF_TC_EGRESS, from_host(), kPriority, "from_host");
}

void Programs::DetachUplink(uint32_t uplink) {
  Detach(uplink, BPF_TC_INGRESS, kPriority);
  Detach(uplink, BPF_TC_INGRESS, kPriority + 1);
}

Status Programs::SetTap(uint32_t tap, uint32_t slot) {
  uint32_t place = tap % CUBE_NEAR_TAPS;
  uint64_t entry = bpf::near_tap(tap, slot);
  if (bpf_map_update_elem(maps_.taps, &tap, &slot, BPF_ANY) == 0 &&
      bpf_map_update_elem(maps_.near_taps, &place, &entry, BPF_ANY) == 0) {
    return OkStatus();
  }
  return ErrnoError("interface %u as the TAP of slot %u", tap, slot);
}

void Programs::ForgetTap(uint32_t tap) {
  uint32_t place = tap % CUBE_NEAR_TAPS;
  uint64_t entry = 0;
  bpf_map_delete_elem(maps_.taps, &tap);
  // It may be another's.
  if (bpf_map_lookup_elem(maps_.near_taps, &place, &entry) != 0 || entry >> 32 != tap) return;
  entry = 0;
  bpf_map_update_elem(maps_.near_taps, &place, &entry, BPF_ANY);
}

int Programs::families() const { return bpf_map__fd(skeleton_->maps.families); }
int Programs::from_sandbox() const { return bpf_program__fd(skeleton_->progs.from_sandbox); }
int Programs::from_world() const { return bpf_program__fd(skeleton_->progs.from_world); }
int Programs::from_host() const { return bpf_program__fd(skeleton_->progs.from_host); }
int Programs::early_filter() const { return bpf_program__fd(skeleton_->progs.early_filter); }

void Programs::Unpin(const std::string& folder) {
  if (!IsBpf(folder)) return;
  std::error_code ignored;
  fs::remove_all(folder, ignored);
}

Status MountBpf(const std::string& path) {
  if (IsBpf(path)) return OkStatus();
  std::error_code failed;
  fs::create_directories(path, failed);
  if (mount("bpf", path.c_str(), "bpf", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=0700") == 0) {
    return OkStatus();
  }
  return ErrnoError("mounting a BPF file system at %s", path.c_str());
}

}  // namespace cube::net

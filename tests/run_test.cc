// `cube-vmm run` as a user meets it: real guests on the host's KVM.
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <memory>

#include "tests/host_state.h"
#include "tests/process.h"
#include "tests/vmm_command.h"
#include "vmm/loader/test_images.h"

namespace cube::testing {
namespace {

TEST(Run, PrintsExactlyWhatTheCommandPrints) {
  Finished run = RunProcess(Vmm({}, {"/bin/echo", "hello"}));
  EXPECT_EQ(run.status, 0);
  EXPECT_EQ(run.out, "hello\n");
  EXPECT_EQ(run.err, "");
}

// The kernel as distributions ship it, compressed.
TEST(Run, ABzImageBootsToo) {
  Finished run = RunProcess({Env("CUBE_VMM"), "run", "--boot", "--kernel", Env("CUBE_BZIMAGE"), "--initrd",
                             Env("CUBE_INITRD"), "--", "/bin/echo", "hello"});
  EXPECT_EQ(run.status, 0);
  EXPECT_EQ(run.out, "hello\n");
  EXPECT_EQ(run.err, "");
}

// Without the ring-0 engine everything works, slowly; on a host that runs ring 0 itself the option
// changes nothing.
TEST(Run, WorksOnKvmsEmulatorToo) {
  Finished run = RunProcess(
      Vmm({"--ring0", "kvm"}, {"/bin/sh", "-c", "echo $(echo one two | wc -w); exit 5"}));
  EXPECT_EQ(run.status, 5) << run.err;
  EXPECT_EQ(run.out, "2\n");
}

TEST(Run, StreamsAreApartAndTheStatusIsTheCommands) {
  Finished run = RunProcess(
      Vmm({"-e", "WORD=there", "-w", "/tmp"}, {"/bin/sh", "-c", "pwd; echo $WORD >&2; exit 7"}));
  EXPECT_EQ(run.status, 7);
  EXPECT_EQ(run.out, "/tmp\n");
  EXPECT_EQ(run.err, "there\n");
}

TEST(Run, ASignalOfTheCommandIs128PlusItsNumber) {
  EXPECT_EQ(RunProcess(Vmm({}, {"/bin/sh", "-c", "kill -9 $$"})).status, 128 + SIGKILL);
}

TEST(Run, AMissingCommandIs127) {
  Finished run = RunProcess(Vmm({}, {"/no/such/program"}));
  EXPECT_EQ(run.status, 127);
  EXPECT_NE(run.err.find("/no/such/program"), std::string::npos) << run.err;
  EXPECT_EQ(std::count(run.err.begin(), run.err.end(), '\n'), 1) << run.err;
}

// 1 MiB in, through a program, and out again; several vCPUs see each other.
TEST(Run, StdinComesBackIntact) {
  std::string input(1 << 20, '\0');
  uint32_t state = 1;
  for (char& c : input) c = static_cast<char>((state = state * 1664525 + 1013904223) >> 24);
  Finished run = RunProcess(Vmm({"--cpus", "2"}, {"/bin/cat"}), input);
  EXPECT_EQ(run.status, 0) << run.err;
  EXPECT_TRUE(run.out == input) << run.out.size() << " bytes came back";
}

TEST(Run, TenMebibytesOfOutputArriveWithoutLoss) {
  Finished run = RunProcess(
      Vmm({}, {"/bin/sh", "-c", "dd if=/dev/zero bs=65536 count=160 2>/dev/null | tr '\\0' x"}));
  EXPECT_EQ(run.status, 0) << run.err;
  EXPECT_EQ(run.out.size(), 10u << 20);
  EXPECT_EQ(run.out.find_first_not_of('x'), std::string::npos);
}

TEST(Run, AReaderThatLeavesEndsTheCommandBySigpipe) {
  Process process(Vmm({}, {"/bin/sh", "-c", "while echo yes; do :; done; exit 3"}));
  Finished run = process.ReadThenLeave(8);
  EXPECT_EQ(run.out, "yes\nyes\n");
  EXPECT_EQ(run.status, 128 + SIGPIPE);
}

TEST(Run, ATimeLimitStopsAGuestThatSpins) {
  Finished run = RunProcess(Vmm({"--timeout", "2"}, {"/bin/sh", "-c", "while :; do :; done"}));
  EXPECT_EQ(run.status, 124);
  EXPECT_EQ(run.err, "cube-vmm: time limit of 2 s reached\n");
}

TEST(Run, SigtermStopsTheVm) {
  Process process(Vmm({"--console", "-", "--append", "loglevel=7"}, {"/bin/sleep", "1000"}));
  process.WaitForOutput();
  kill(process.pid(), SIGTERM);
  Finished run = process.Finish();
  EXPECT_EQ(run.status, 128 + SIGTERM);
  EXPECT_NE(run.err.find("cube-vmm: stopped by signal 15\n"), std::string::npos);
}

TEST(Run, EightAtOnceSucceedAndLeaveNothingBehind) {
  const HostState before = HostState::Count(Env("CUBE_VMM"));
  {
    std::vector<std::unique_ptr<Process>> all;
    for (int i = 0; i < 8; ++i) {
      all.push_back(std::make_unique<Process>(Vmm({}, {"/bin/echo", std::to_string(i)})));
    }
    std::vector<pid_t> pids;
    for (const auto& process : all) pids.push_back(process->pid());
    for (int i = 0; i < 8; ++i) {
      Finished run = all[static_cast<size_t>(i)]->Finish();
      EXPECT_EQ(run.status, 0) << run.err;
      EXPECT_EQ(run.out, std::to_string(i) + "\n");
    }
    for (pid_t pid : pids) EXPECT_NE(kill(pid, 0), 0);
  }
  EXPECT_EQ(HostState::Count(Env("CUBE_VMM")), before);
}

// KiB of a process's memory, apart from the guest's. That is one mapping, or several once parts of it
// became huge pages; none is smaller than such a page, and nothing else that is written is as large.
struct ProcessMemory {
  int resident = 0;   // and of no other process
  int anonymous = 0;  // of it, what was written. Not "dirty": that says whether the file is, too.
  static constexpr unsigned long long kHugePage = 2 << 20;

  static ProcessMemory Of(pid_t pid) {
    std::ifstream smaps("/proc/" + std::to_string(pid) + "/smaps");
    ProcessMemory memory;
    bool guest = false;
    for (std::string line; std::getline(smaps, line);) {
      unsigned long long low, high;
      int kib;
      char write;
      if (sscanf(line.c_str(), "%llx-%llx %*c%c", &low, &high, &write) == 3) {
        guest = write == 'w' && high - low >= kHugePage;
      } else if (guest) {
        continue;
      } else if (sscanf(line.c_str(), "Private_Clean: %d", &kib) == 1 ||
                 sscanf(line.c_str(), "Private_Dirty: %d", &kib) == 1) {
        memory.resident += kib;
      } else if (sscanf(line.c_str(), "Anonymous: %d", &kib) == 1) {
        memory.anonymous += kib;
      }
    }
    return memory;
  }
};

TEST(Run, AnIdleVmmKeepsLittleMemory) {
  constexpr int kMaxResident = 1500, kMaxAnonymous = 640;
  Process process(Vmm({"--memory", "128"}, {"/bin/sh", "-c", "echo up; sleep 1000"}));
  EXPECT_EQ(process.WaitForOutput(), "up\n");
  // Idle is what it is a moment later, when what only the start needed has been given back.
  ProcessMemory memory;
  for (int i = 0; i < 400; ++i) {
    memory = ProcessMemory::Of(process.pid());
    ASSERT_GT(memory.anonymous, 50) << "nothing was counted";
    if (memory.resident <= kMaxResident && memory.anonymous <= kMaxAnonymous) break;
    usleep(100000);
  }
  EXPECT_LE(memory.resident, kMaxResident);
  EXPECT_LE(memory.anonymous, kMaxAnonymous);
  kill(process.pid(), SIGTERM);
  EXPECT_EQ(process.Finish().status, 128 + SIGTERM);
}

TEST(Run, APanicIsNamed) {
  // The kernel finds no init in an archive that the loader need not understand.
  std::string path = Env("TEST_TMPDIR") + "/empty.cpio";
  std::ofstream(path) << std::string(512, '\0');
  std::vector<std::string> arguments = {Env("CUBE_VMM"), "run", "--boot", "--kernel", Env("CUBE_KERNEL"),
                                        "--initrd",      path,   "--",       "/bin/true"};
  Finished run = RunProcess(arguments);
  EXPECT_EQ(run.status, 125);
  EXPECT_NE(run.err.find("cube-vmm: the guest kernel panicked: "), std::string::npos) << run.err;
}

// Guests that misbehave, each a kernel of a few instructions entered in 64-bit mode at 16 MiB.
struct Misbehaviour {
  const char* name;
  std::vector<uint8_t> code;
  int status;
  std::string message;
};

TEST(Run, GuestsThatMisbehaveAreStoppedWithOneLine) {
  const Misbehaviour cases[] = {
      {"no handler", {0x0f, 0x0b}, 125, "cube-vmm: the guest triple-faulted at rip 0x1000000\n"},
      // mov $0xffff800000000000, %rax; jmp *%rax
      {"jump to nowhere",
       {0x48, 0xb8, 0, 0, 0, 0, 0, 0x80, 0xff, 0xff, 0xff, 0xe0},
       125,
       "cube-vmm: the guest triple-faulted"},
      {"reset port", {0xb0, 0xfe, 0xe6, 0x64, 0xf4}, 125, "cube-vmm: the guest restarted\n"},
      {"spins", {0xeb, 0xfe}, 124, "cube-vmm: time limit of 1 s reached\n"},
      {"halts for ever", {0xfa, 0xf4, 0xeb, 0xfc}, 124, "cube-vmm: time limit of 1 s reached\n"},
      // All ones to CR0, CR4, CR8 and CR3, from RAX.
      {"CR0", {0x48, 0x83, 0xc8, 0xff, 0x0f, 0x22, 0xc0}, 125, "cube-vmm: "},
      {"CR4", {0x48, 0x83, 0xc8, 0xff, 0x0f, 0x22, 0xe0}, 125, "cube-vmm: "},
      {"CR8", {0x48, 0x83, 0xc8, 0xff, 0x44, 0x0f, 0x22, 0xc0}, 125, "cube-vmm: "},
      {"CR3", {0x48, 0x83, 0xc8, 0xff, 0x0f, 0x22, 0xd8}, 125, "cube-vmm: "},
      // mov $0xd0000000, %eax; jmp *%rax: the first page of the devices, where nothing is to be
      // executed and KVM tries for ever.
      {"jumps into a device",
       {0xb8, 0, 0, 0, 0xd0, 0xff, 0xe0},
       124,
       "cube-vmm: time limit of 1 s reached\n"},
      // The root table's first entry leads to the root itself, for user mode too; then CR3 again.
      {"tables over themselves",
       {0x0f, 0x20, 0xd8, 0x48, 0x89, 0xc3, 0x48, 0x83, 0xcb, 0x67, 0x48, 0x89, 0x18, 0x0f, 0x22,
        0xd8},
       125,
       "cube-vmm: the guest triple-faulted"},
      // For ever: lock xorq $0x1000, 0x800(%rax), an entry of the root; mov %rax, %cr3.
      {"tables that never rest",
       {0x0f, 0x20, 0xd8, 0xf0, 0x48, 0x81, 0xb0, 0,    8,    0,
        0,    0,    0x10, 0,    0,    0x0f, 0x22, 0xd8, 0xeb, 0xef},
       124,
       "cube-vmm: time limit of 1 s reached\n"},
      // A root table beyond all memory: mov $0x3ffffff000, %rax; mov %rax, %cr3.
      {"tables that are not memory",
       {0x48, 0xb8, 0, 0xf0, 0xff, 0xff, 0x3f, 0, 0, 0, 0x0f, 0x22, 0xd8},
       125,
       "cube-vmm: "},
      {"garbage", {0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, 125, "cube-vmm: the guest triple-faulted"},
      // EFER of 0 while paging is on.
      {"EFER", {0xb9, 0x80, 0, 0, 0xc0, 0x31, 0xc0, 0x31, 0xd2, 0x0f, 0x30}, 125, "cube-vmm: "},
  };
  std::string path = Env("TEST_TMPDIR") + "/misbehaves";
  for (const Misbehaviour& guest : cases) {
    SCOPED_TRACE(guest.name);
    constexpr uint64_t kEntry = 0x1000000;
    std::vector<uint8_t> code = guest.code;
    code.insert(code.end(), {0x0f, 0x0b});
    auto elf = vmm::testing::MakeElf(kEntry, {{kEntry, code, 4096}});
    std::ofstream(path, std::ios::binary)
        .write(reinterpret_cast<const char*>(elf.data()), static_cast<std::streamsize>(elf.size()));
    Finished run = RunProcess({Env("CUBE_VMM"), "run", "--boot", "--kernel", path, "--initrd", "",
                               "--timeout", "1", "--", "/bin/true"});
    EXPECT_EQ(run.status, guest.status) << run.err;
    EXPECT_EQ(run.out, "");
    EXPECT_NE(run.err.find(guest.message), std::string::npos) << run.err;
  }
}

struct BadInput {
  const char* name;
  std::vector<std::string> options;
  std::string message;
};

TEST(Run, BadInputIsOneLineAndStatus125) {
  std::string folder = Env("TEST_TMPDIR");
  std::ofstream(folder + "/text") << "this is not a kernel, however long it is";
  std::ofstream(folder + "/nothing").close();
  std::filesystem::copy_file(Env("CUBE_KERNEL"), folder + "/cut",
                             std::filesystem::copy_options::overwrite_existing);
  std::filesystem::permissions(folder + "/cut", std::filesystem::perms::owner_all);
  std::filesystem::resize_file(folder + "/cut", 100000);
  std::ofstream(folder + "/large").close();
  std::filesystem::resize_file(folder + "/large", 200 << 20);
  const BadInput cases[] = {
      {"no KVM", {"--kvm", "/no/kvm"}, "/no/kvm"},
      {"not KVM", {"--kvm", "/dev/null"}, "/dev/null"},
      {"no kernel", {"--kernel", "/no/kernel"}, "/no/kernel"},
      {"not a kernel", {"--kernel", folder + "/text"}, folder + "/text"},
      {"empty kernel", {"--kernel", folder + "/nothing"}, folder + "/nothing"},
      {"truncated kernel", {"--kernel", folder + "/cut"}, folder + "/cut"},
      {"no initrd", {"--initrd", "/no/initrd"}, "/no/initrd"},
      {"large initrd", {"--initrd", folder + "/large"}, folder + "/large"},
      {"no memory", {"--memory", "0"}, "0 bytes"},
      {"too much memory", {"--memory", "99999999"}, "99999999 MiB"},
      {"not a number", {"--memory", "lots"}, "lots"},
      {"no CPU", {"--cpus", "0"}, "0 vCPUs"},
      {"too many CPUs", {"--cpus", "9"}, "9 vCPUs"},
      {"long command line", {"--append", std::string(5000, 'a')}, "2047"},
      {"unknown option", {"--nonsense"}, "--nonsense"},
  };
  for (const BadInput& bad : cases) {
    SCOPED_TRACE(bad.name);
    std::vector<std::string> arguments = {Env("CUBE_VMM"), "run", "--boot"};
    auto add = [&](const char* option, const std::string& value) {
      if (std::find(bad.options.begin(), bad.options.end(), option) != bad.options.end()) return;
      arguments.push_back(option);
      arguments.push_back(value);
    };
    add("--kernel", Env("CUBE_KERNEL"));
    add("--initrd", Env("CUBE_INITRD"));
    arguments.insert(arguments.end(), bad.options.begin(), bad.options.end());
    arguments.insert(arguments.end(), {"--", "/bin/true"});
    Finished run = RunProcess(arguments);
    EXPECT_EQ(run.status, 125);
    EXPECT_EQ(run.out, "");
    EXPECT_EQ(run.err.rfind("cube-vmm: ", 0), 0u) << run.err;
    EXPECT_EQ(std::count(run.err.begin(), run.err.end(), '\n'), 1) << run.err;
    EXPECT_NE(run.err.find(bad.message), std::string::npos) << run.err;
  }
}

TEST(Run, NoCommandWithoutATerminalIsRefused) {
  Finished run = RunProcess(Vmm({}, {}));
  EXPECT_EQ(run.status, 125);
  EXPECT_EQ(run.err, "cube-vmm: no command given, and stdin is not a terminal for a shell\n");
}

TEST(Run, HelpIsThereForAll) {
  for (const char* command : {"run", "host"}) {
    Finished help = RunProcess({Env("CUBE_VMM"), command, "--help"});
    EXPECT_EQ(help.status, 0);
    EXPECT_NE(help.out.find("--json"), std::string::npos);
  }
}

TEST(Host, ReportsWhatThisHostCanDo) {
  Finished host = RunProcess({Env("CUBE_VMM"), "host", "--json"});
  EXPECT_EQ(host.status, 0);
  EXPECT_NE(host.out.find("\"usable\":true"), std::string::npos) << host.out;
  EXPECT_NE(RunProcess({Env("CUBE_VMM"), "host"}).out.find("VMs run here"), std::string::npos);
}

}  // namespace
}  // namespace cube::testing

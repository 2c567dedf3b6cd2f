#ifndef CUBE_BASE_CONTROL_ABI_H_
#define CUBE_BASE_CONTROL_ABI_H_

#include <atomic>
#include <cstddef>
#include <cstdint>

// The contract between the VMM and PID 1 of the guest (docs/design.md, "The control device and the
// create path"): a doorbell page, whose stores leave guest user mode for the VMM, and a mailbox of
// shared memory. Both sides treat what they read from the mailbox as hostile: indices are checked
// against constants of this file, never against each other's words.
namespace cube::abi {

// The doorbell page. A store of 8 bytes to kDoorbellCommand carries a Command in its low half and
// the command's argument in its high half. A 4-byte store to kDoorbellNotify says that a ring of
// the mailbox has changed; its value is not used. Loads give all ones.
inline constexpr uint64_t kDoorbellAddress = 0xd0000000;
inline constexpr uint64_t kDoorbellSize = 0x1000;
inline constexpr uint64_t kDoorbellCommand = 0x0;
inline constexpr uint64_t kDoorbellNotify = 0x10;

enum class Command : uint32_t {
  kBooted = 1,  // the agent runs and has mapped the mailbox
  kPark = 2,    // freeze here: the template is warm
  kReady = 3,   // identity taken, requests accepted; or the argument is not 0 (MountFailure)
  kSettle = 5,  // idle now until it parks, for the argument's seconds of guest time, which may be
                // let pass quicker
  kExit = 4,  // all output is in the rings; the argument is the exit status, 0 to 255
};

// The mailbox: RAM that the guest's memory map does not list.
inline constexpr uint64_t kMailboxAddress = 0xd0001000;
inline constexpr size_t kMailboxSize = 64 * 1024;
inline constexpr uint32_t kMailboxMagic = 0x65627563;  // "cube"
inline constexpr uint32_t kMailboxVersion = 1;

// A ring of bytes with one producer and one consumer. The indices count bytes since the start,
// modulo 2^32; their difference is never more than the capacity. Each side keeps its own index
// privately as well and publishes it here; it reads only the other's.
struct RingHeader {
  std::atomic<uint32_t> produced;
  // Set by the producer when it ends the stream; nothing is produced after.
  std::atomic<uint32_t> end_of_stream;
  // Set by a producer that waits for space; taken back by the consumer that wakes it.
  std::atomic<uint32_t> producer_waits;
  uint32_t reserved0[13];
  std::atomic<uint32_t> consumed;
  // Set by the consumer when it will take no more; the producer may drop the rest.
  std::atomic<uint32_t> consumer_gone;
  uint32_t reserved1[14];
};
static_assert(sizeof(RingHeader) == 128);

enum class RingId : uint32_t {
  kToGuest = 0,    // frames: FrameHeader and payload, host to agent
  kFromGuest = 1,  // frames, agent to host
  kStdin = 2,
  kStdout = 3,
  kStderr = 4,
};
inline constexpr uint32_t kRingCount = 5;

// Where a ring's bytes lie in the mailbox. Capacities are powers of two.
struct RingPlace {
  uint32_t offset;
  uint32_t capacity;
};
inline constexpr RingPlace kRingPlaces[kRingCount] = {
    {0x1000, 0x1000}, {0x2000, 0x1000}, {0x4000, 0x4000}, {0x8000, 0x4000}, {0xc000, 0x2000},
};

struct MailboxHeader {
  uint32_t magic;
  uint32_t version;
  // The agent sets this before it sleeps; the host, having changed a ring, takes it back and, if it
  // was set, wakes the guest by one byte on the serial port (the agent never polls).
  std::atomic<uint32_t> guest_sleeps;
  uint32_t reserved[29];
  RingHeader rings[kRingCount];
};
static_assert(sizeof(MailboxHeader) <= 0x1000);

// Who a clone is: written by the host before the vCPUs run, read by the agent after its kPark
// store. A generation of 0 means that the snapshot itself is being continued, under the identity it
// has. The header is followed by `string_count` strings, each ended by a zero byte: the sandbox's
// id, its hostname, its access token, `volume_count` absolute paths, then NAME=value for every
// program's environment. The first path is where the share with the tag kVolumeTag and 0 is to be
// mounted, the next that with 1, and so on; those of the identity before stay mounted. Two of these
// names are not for programs: as whom (USER or USER:GROUP) and where those run that clients of the
// sandbox start without saying so.
inline constexpr uint32_t kIdentityOffset = 0xe000;
inline constexpr uint32_t kIdentitySize = 0x2000;
inline constexpr uint32_t kEntropySize = 64;

struct IdentityHeader {
  std::atomic<uint32_t> generation;
  uint32_t string_count;
  uint32_t string_bytes;
  uint32_t volume_count;         // at most kMaxVolumes
  int64_t realtime_nanoseconds;  // the host's CLOCK_REALTIME as the vCPUs begin to run; 0: not set
  uint8_t entropy[kEntropySize];
};
static_assert(kIdentityOffset + kIdentitySize <= kMailboxSize);
inline constexpr uint32_t kMaxIdentityStrings = kIdentitySize - sizeof(IdentityHeader);
inline constexpr uint32_t kIdentityFixedStrings = 3;
inline constexpr char kVolumeTag[] = "volume";
inline constexpr uint32_t kMaxVolumes = 8;
// kReady's argument where a volume could not be mounted: its number and the errno value.
constexpr uint32_t MountFailure(uint32_t volume, uint32_t error) {
  return (volume + 1) << 16 | (error & 0xffff);
}
inline constexpr char kDefaultUserVariable[] = "CUBE_DEFAULT_USER";
inline constexpr char kDefaultWorkdirVariable[] = "CUBE_DEFAULT_WORKDIR";

// Frames of the two control rings. A payload may be larger than the ring: it is a byte stream.
struct FrameHeader {
  uint32_t type;  // FrameType
  uint32_t size;  // of the payload, at most kMaxFrameSize
};
inline constexpr uint32_t kMaxFrameSize = 2 * 1024 * 1024;

enum class FrameType : uint32_t {
  // Host to agent. Start: StartHeader, then `argument_count` and `variable_count` strings, each
  // ended by a zero byte, then the working directory, ended by a zero byte.
  kStart = 1,
  // Host to agent: a signal for the child's process group, SignalPayload.
  kSignal = 2,
  // Agent to host: the child could not be started; FailedPayload, then text.
  kStartFailed = 16,
  // Agent to host: the child runs; StartedPayload.
  kStarted = 17,
  // Agent to host: the child has ended; ExitedPayload. All its output is in the rings before this.
  kExited = 18,
};

struct StartHeader {
  uint32_t flags;
  uint32_t argument_count;
  uint32_t variable_count;
  // The terminal's size if kStartOnConsole, 0 if not known.
  uint16_t rows;
  uint16_t columns;
};
// The child's stdin, stdout and stderr are the console, which becomes its controlling terminal.
inline constexpr uint32_t kStartOnConsole = 1;

// The agent's own program, which does what guests may lack programs for:
//   as USER[:GROUP] -- PROGRAM [ARGUMENT]...    becomes that user, and then the program
//   step USER[:GROUP] -- PROGRAM [ARGUMENT]...  the same in a child; then ends everything else that
//                                               runs and leaves the root disk clean, for a layer
//   unpack                                      makes the files that come on stdin
//                                               (base/file_stream.h); leaves the disk clean
inline constexpr char kAgentProgram[] = "/proc/1/exe";

// With the word cube_warmup=1 on the kernel's command line the agent starts what this file of the
// root disk says before it parks: strings, each ended by a zero byte: the seconds the second
// command may take until it succeeds, the user, the working directory, a command for /bin/sh that
// goes on running, a command that succeeds once that one is ready, or nothing; then NAME=value.
inline constexpr char kWarmUpPath[] = "/etc/cube/warm-up";
inline constexpr char kWarmUpLog[] = "/var/log/cube-start.log";
inline constexpr size_t kWarmUpFixedStrings = 5;

struct SignalPayload {
  uint32_t signal;
};
struct StartedPayload {
  uint32_t pid;
};
struct ExitedPayload {
  uint32_t wait_status;  // as waitpid(2) gives it
};
struct FailedPayload {
  uint32_t error;  // errno
};

}  // namespace cube::abi

#endif  // CUBE_BASE_CONTROL_ABI_H_

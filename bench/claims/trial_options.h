#ifndef CUBE_BENCH_CLAIMS_TRIAL_OPTIONS_H_
#define CUBE_BENCH_CLAIMS_TRIAL_OPTIONS_H_

#include <cstdint>
#include <string>

namespace cube::bench {

// What is measured, and for how long.
struct TrialOptions {
  // Programs and images, by path.
  std::string vmm, cubed, kernel, initrd, rootfs;
  std::string boot_initrd;  // of a guest without a root disk, that has /bin/true
  std::string bzimage;      // the kernel as QEMU wants it; "": no such peer
  std::string fabric;       // the program that measures the network; "": it is not measured
  // Made for the run, deleted after it; a folder of a disk, as snapshots are written there.
  std::string work_folder = "/var/tmp";
  uint64_t memory_mib = 512;  // of each guest
  bool no_jail = false;
  // As many rounds and sandboxes as ten minutes have no room for.
  bool is_full = false;

  uint64_t Rounds(uint64_t few) const { return is_full ? few * 5 : few; }
};

}  // namespace cube::bench

#endif  // CUBE_BENCH_CLAIMS_TRIAL_OPTIONS_H_

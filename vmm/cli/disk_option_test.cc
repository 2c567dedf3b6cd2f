#include "vmm/cli/disk_option.h"

#include <gtest/gtest.h>

namespace cube::vmm {
namespace {

using ::cube::devices::blk::IoEngine;

TEST(DiskOption, TakesAllThereIs) {
  DiskOption option = ParseDiskOption(
                          "/a b/base:layer=one:layer=two:overlay=o=1:id=root:bps=10M:"
                          "iops=2k:engine=thread")
                          .value();
  EXPECT_EQ(option.files.base, "/a b/base");
  EXPECT_EQ(option.files.layers, (std::vector<std::string>{"one", "two"}));
  EXPECT_EQ(option.files.overlay, "o=1");
  EXPECT_FALSE(option.files.read_only);
  EXPECT_EQ(option.device.id, "root");
  EXPECT_EQ(option.device.limits.bytes_per_second, 10u << 20);
  EXPECT_EQ(option.device.limits.operations_per_second, 2048u);
  EXPECT_EQ(option.device.engine, IoEngine::Kind::kThread);
  EXPECT_TRUE(ParseDiskOption("f:ro").value().files.read_only);
  EXPECT_TRUE(ParseDiskOption("f:temporary").value().temporary);
}

TEST(DiskOption, NamesTheWordAtFault) {
  const std::pair<const char*, const char*> cases[] = {{"", "file"},
                                                       {":ro", "file"},
                                                       {"f:rw", "'rw'"},
                                                       {"f:", "''"},
                                                       {"f:overlay", "'overlay'"},
                                                       {"f:overlay=", "'overlay='"},
                                                       {"f:overlay=a:overlay=b", "overlay="},
                                                       {"f:bps=0", "'0' in bps="},
                                                       {"f:bps=1T", "'1T'"},
                                                       {"f:bps=-1", "'-1'"},
                                                       {"f:bps=99999999999999999999", "bps="},
                                                       {"f:iops=1025G", "'1025G'"},
                                                       {"f:engine=fast", "'engine'"},
                                                       {"f:temporary:ro", "'temporary'"},
                                                       {"f:overlay=a:temporary", "'temporary'"},
                                                       {"f:x=y", "'x'"}};
  for (auto [text, part] : cases) {
    auto option = ParseDiskOption(text);
    ASSERT_FALSE(option.ok()) << text;
    EXPECT_NE(option.error().message().find(part), std::string::npos) << option.error().message();
  }
}

TEST(DiskOption, ErrorsNameTheOption) {
  EventLoop loop = EventLoop::Create().value();
  auto disk = MakeDisk("/no/such/file:ro", "vda", "/tmp", &loop);
  ASSERT_FALSE(disk.ok());
  EXPECT_EQ(disk.error().message().rfind("--disk /no/such/file:ro: ", 0), 0u)
      << disk.error().message();
}

}  // namespace
}  // namespace cube::vmm

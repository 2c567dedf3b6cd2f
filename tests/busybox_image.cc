#include "tests/busybox_image.h"

#include <fstream>
#include <iterator>

#include "templates/testing/tar_writer.h"

namespace cube::testing {

using templates::testing::TarWriter;

const char kBusyboxConfig[] =
    "{\"Env\":[\"PATH=/bin\",\"GREETING=hello there\"],\"WorkingDir\":\"/srv\",\"User\":\"app\","
    "\"Entrypoint\":[\"/bin/echo\",\"own\"],\"Cmd\":[\"command\"]}";

std::map<int, std::string> BusyboxLayers() {
  std::ifstream program("/bin/busybox", std::ios::binary);
  TarWriter below;
  below.Folder("bin").File("bin/busybox", {std::istreambuf_iterator<char>(program), {}}, 0755);
  for (const char* name : {"sh", "cat", "echo", "grep", "head", "httpd", "id", "ls", "mkdir", "pwd",
                           "rm", "sleep", "stat", "test", "true", "false", "touch", "wget"}) {
    below.HardLink(std::string("bin/") + name, "bin/busybox");
  }
  below.File("etc/passwd", "root:x:0:0::/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\n");
  below.File("etc/group", "root:x:0:\napp:x:1000:\nweb:x:50:app\n");
  below.Add({.path = "home/app/", .type = '5', .mode = 0700, .uid = 1000, .gid = 1000});
  below.Add({.path = "srv/data", .content = "data\n", .mode = 0600, .uid = 1000, .gid = 1000});
  below.File("srv/gone", "x").File("srv/old/deep/file", "x");
  TarWriter above;
  above.File("srv/.wh.gone", "").File("srv/old/.wh..wh..opq", "").File("srv/old/new", "new\n");
  above.Link("srv/link", "data");
  return {{0, below.Finish()}, {1, above.Finish()}};
}

}  // namespace cube::testing

#ifndef CUBE_GUESTKERNEL_AGENT_ENVD_ENTRY_H_
#define CUBE_GUESTKERNEL_AGENT_ENVD_ENTRY_H_

#include <sys/stat.h>

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/json_writer.h"
#include "guestkernel/agent/connect/rpc_error.h"
#include "guestkernel/agent/envd/users.h"

namespace cube::agent::envd {

// Attributes that clients give their files: names and values. They are extended attributes of these
// files, whose names begin with this prefix.
using Metadata = std::vector<std::pair<std::string, std::string>>;
inline constexpr std::string_view kMetadataPrefix = "user.e2b.";

// Of a file or directory; empty if it has none, or its file system knows none.
Metadata ReadMetadata(const std::string& path);
void WriteMetadata(JsonWriter* writer, const Metadata& metadata);

// The permissions of a file as clients expect them written: "-rw-r--r--", "dtrwxrwxrwx".
std::string PermissionText(mode_t mode);

// Writes the message filesystem.EntryInfo of what `info`, of lstat(2), tells of `path`.
void WriteEntry(JsonWriter* writer, Users* users, const std::string& path, const struct stat& info);

// {"entry":...} of what is at `path`; not_found if nothing is.
connect::Outcome<std::string> EntryJson(Users* users, const std::string& path);

// The last part of a path.
std::string BaseName(const std::string& path);
// All but that.
std::string FolderOf(const std::string& path);

}  // namespace cube::agent::envd

#endif  // CUBE_GUESTKERNEL_AGENT_ENVD_ENTRY_H_

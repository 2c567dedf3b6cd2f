#ifndef CUBE_API_SANDBOX_ANSWERS_H_
#define CUBE_API_SANDBOX_ANSWERS_H_

#include <string>

#include "api/sandbox_notes.h"
#include "base/json_writer.h"
#include "pool/records.h"

namespace cube::api {

// The version of the protocol that a sandbox's agent speaks (guestkernel/agent/envd).
inline constexpr char kEnvdVersion[] = "0.6.13";
inline constexpr char kClientId[] = "cube";

// Whether clients are told of a sandbox in this state; and whether it then counts as paused.
bool IsShown(pool::SandboxState state);
bool IsPaused(pool::SandboxState state);

// What a create, connect or fork says. `domain`: of the configuration.
void AddSandbox(const pool::SandboxRecord& record, const SandboxNotes& notes,
                const std::string& domain, JsonWriter* json);
// What a list says, and more if `detail`.
void AddListed(const pool::SandboxRecord& record, const SandboxNotes& notes, bool detail,
               const std::string& domain, JsonWriter* json);

// JSON text of a client's, which was parsed before, as a value.
void AddText(const std::string& json_text, JsonWriter* json);

}  // namespace cube::api

#endif  // CUBE_API_SANDBOX_ANSWERS_H_

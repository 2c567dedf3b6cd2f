#ifndef CUBE_POOL_CONTROL_ANSWERS_H_
#define CUBE_POOL_CONTROL_ANSWERS_H_

#include <string>

#include "base/json_writer.h"
#include "pool/node.h"

namespace cube::pool {

// The objects that answers are made of, and whole answers of the control protocol (control_api.h).

void AddSandbox(const SandboxRecord& record, JsonWriter* json);
void AddSnapshot(const SnapshotRecord& record, JsonWriter* json);

std::string SandboxAnswer(const Sandbox& sandbox);
std::string SandboxListAnswer(const Node& node, const std::string& state);
std::string SnapshotListAnswer(Node& node);
std::string TemplateListAnswer(const Node& node);
std::string PoolAnswer(const Node& node);
std::string NodeAnswer(Node& node, const std::string& http_address);

}  // namespace cube::pool

#endif  // CUBE_POOL_CONTROL_ANSWERS_H_

// Steps: what setting up a sandbox does, in order, with the consequence and the cure of each
// failure.
//
//   Failure failure = make_namespaces(...);        // in a child: no allocation, no exceptions
//   if (failure) report(failure);                  // crosses to the caller as plain bytes
//   return explain(failure);                       // in the caller: one line for a human
//
// launch() and `certgate doctor` share this table, so what doctor says is what run does. One row
// per step; the order of the enumerators is the order of execution.
#pragma once

#include <cstdint>
#include <span>

#include "kernel/result.h"

namespace certgate::sandbox {

enum class Step : uint8_t {
  kClone,
  kCgroup,
  kIdMap,
  kMountNamespace,
  kNetNamespace,
  kIpcNamespace,
  kUtsNamespace,
  kCgroupNamespace,
  kPrivateTree,
  kBindSource,
  kFileSystem,
  kProc,
  kRoot,
  kMountPoint,
  kAttach,
  kPrivateFiles,
  kProcMask,
  kReadOnlyRoot,
  kVerifyRoot,
  kHostname,
  kLoopback,
  kRoutes,
  kInit,
  kTerminal,
  kLimits,
  kWorkingDirectory,
  kNoNewPrivs,
  kCapabilities,
  kFilter,
  kListener,
  kSocketNames,
  kHandshake,
  kSteps
};

struct StepRow {
  Step step;
  const char* what;         // "create a user namespace"
  const char* consequence;  // of a failure, for the operator
  const char* cure;
};

std::span<const StepRow> step_table();
const StepRow& step_row(Step step);

// Plain bytes, since a child after clone() must not allocate and sends it through a socket.
struct Failure {
  int32_t error = 0;  // errno; 0 is success
  Step step = Step::kSteps;
  char object[235] = {};  // what it was about (a path), may be empty

  explicit operator bool() const { return error != 0; }
};

// `error` defaults to errno (and is never 0, so that a failure stays one).
Failure fail_step(Step step, const char* object = "", int error = 0);

// "create a user namespace: Operation not permitted; cure: …"
Error explain(const Failure& failure);

}  // namespace certgate::sandbox

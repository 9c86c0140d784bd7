// Mutants: what a build is worth in which one defence is missing. A test build (CMake option
// CERTGATE_MUTANTS) can take one of them away, named by the environment; then an attack must
// succeed, or it proves nothing. In every other build each question below is the constant "no", and
// the compiler removes it.
//
//   if (mutant(Mutant::kExecProof)) return "";      // in the place of the defence, one line
//
// tests/escape/mutants.py has one row for each: which attack then succeeds. Where the self-test of
// a start stands in between, CERTGATE_MUTANT names both ("filter-table,self-test"); that it does is
// what tests/e2e/self_test.py shows, with the mutants that are only for it.
#pragma once

namespace certgate {

// Name in the environment variable CERTGATE_MUTANT (several with commas), and what is missing.
#define CERTGATE_MUTANT_TABLE(X)                                                                   \
  X(kNone, "none")                                                                                 \
  X(kForeignAbi, "foreign-abi")           /* filter: other architectures are not killed */         \
  X(kFilterTable, "filter-table")         /* filter: refused calls are allowed */                  \
  X(kFilterGuard, "filter-guard")         /* filter: refused argument values pass */               \
  X(kPinnedOpen, "pinned-open")           /* open: performed on the path, not the object */        \
  X(kMagicLinks, "magic-links")           /* open: /proc/self/fd is not judged again */            \
  X(kProcessMemory, "process-memory")     /* open: /proc/<pid>/mem, nothing forbidden */           \
  X(kExecProof, "exec-proof")             /* exec: decided, not proved */                          \
  X(kScriptBinding, "script-binding")     /* exec: the script may change after the proof */        \
  X(kReplaces, "replaces")                /* paths below a replaced directory are not asked for */ \
  X(kOtherNames, "other-names")           /* hard links are written like other files */            \
  X(kZoneMove, "zone-move")               /* a name moves to another zone and its origin */        \
  X(kPathReads, "path-reads")             /* link texts and attributes carry no label */           \
  X(kNameLabels, "name-labels")           /* directories carry no label of their names */          \
  X(kAddressCopy, "address-copy")         /* connect: the address is read again to perform */      \
  X(kInternalAddress, "internal-address") /* 0.0.0.0/0 is also the host's own networks */          \
  X(kNames, "names")                      /* the resolver answers for every name */                \
  X(kUnixPath, "unix-path")               /* unix sockets of the host need no rule */              \
  X(kSocketNames, "socket-names")         /* unix: init binds names wherever they lead */          \
  X(kShut, "shut")                        /* a raise leaves connections open */                    \
  X(kHeldFiles, "held-files")             /* a raise does not mark files held for writing */       \
  X(kReaders, "readers")                  /* other running agents are not asked to raise */        \
  X(kHomeLabel, "home-label")             /* a home is kept as clean as the run began */           \
  X(kMountPoints, "mount-points")         /* names of mount points are removed and replaced */     \
  X(kOwnUid, "own-uid")                   /* agents that run at once have one uid */               \
  X(kAccept, "accept")                    /* rules accept every label */                           \
  X(kClearance, "clearance")              /* sinks need no clearance when they connect */          \
  X(kTaint, "taint")                      /* reading joins nothing */                              \
  X(kTokenEnd, "token-end")               /* tokens go on when they are revoked or over */         \
  X(kBudget, "budget")                    /* each caller counts for itself */                      \
  X(kApproval, "approval")                /* answers are taken whoever signed them */              \
  X(kToolPin, "tool-pin")                 /* a tool is what lies at its path */                    \
  X(kPermitOnce, "permit-once")           /* a permit is good for many execs */                    \
  X(kProjectPolicy, "project-policy")     /* agents may write the project's policy */              \
  X(kRedaction, "redaction")              /* what `[redact]` names stays in the log */             \
  X(kWitness, "witness")                  /* a witness signs what contradicts it */                \
  X(kLogRoom, "log-room")                 /* no room is kept on the log's disk */                  \
  X(kPrivateIpc, "private-ipc")           /* sandbox: the host's ipc namespace */                  \
  X(kOwnProc, "own-proc")                 /* sandbox: the host's /proc */                          \
  X(kControlSide, "control-side")         /* sandbox: the state directory is mounted */            \
  X(kCgroup, "cgroup")                    /* no cgroup bounds the agent */                         \
  X(kRecordRate, "record-rate")           /* records are made as fast as the agent can */          \
  X(kBlocking, "blocking")                /* what may block is done by the notify thread */        \
  X(kWaitKillable, "wait-killable")       /* filter: signal handlers interrupt calls */            \
  X(kRestarts, "restarts")                /* a call that is started anew is performed anew */      \
  X(kSelfTest, "self-test")               /* nothing is tried before the agent starts */           \
  X(kDeathOfSupervisor, "death")          /* the sandbox outlives its supervisor */                \
  X(kRecordFirst, "record-first")         /* records stay in memory until there are 4 KiB */       \
  X(kUnjudgedOpen, "unjudged-open")       /* for the self-test: the filter allows openat */        \
  X(kUnjudgedExec, "unjudged-exec")       /* the same with execve */                               \
  X(kUnjudgedConnect, "unjudged-connect") /* the same with connect */                              \
  X(kContinues, "continues")              /* for the self-test: refusals let the call go on */     \
  X(kSilent, "silent")                    /* for the self-test: refusals are never sent */         \
  X(kEscape, "escape")                    /* untrusted text reaches the terminal as it is */

enum class Mutant : unsigned char {
#define CERTGATE_MUTANT_ENUM(id, name) id,
  CERTGATE_MUTANT_TABLE(CERTGATE_MUTANT_ENUM)
#undef CERTGATE_MUTANT_ENUM
};

#ifdef CERTGATE_MUTANTS
bool mutant(Mutant which);  // aborts on a name that the table does not have
#else
constexpr bool mutant(Mutant) { return false; }
#endif

}  // namespace certgate

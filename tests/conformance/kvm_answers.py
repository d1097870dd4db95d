"""Stands in for the process that asks a KVM: says what its argument asks for, one line, and then is silent.

    python -m tests.conformance.kvm_answers BEHAVIOUR

`silent` never answers; `version` answers with API version 11; `denied` is refused the device; `dies` opens it and ends;
`stuck` is a KVM that offers nothing and whose vCPUs do not return.
"""

from __future__ import annotations

import json
import sys
import time


def main(behaviour: str) -> None:
    if behaviour.endswith("denied"):
        print(json.dumps({"error": "Permission denied"}), flush=True)
        return
    if not behaviour.endswith("silent"):
        print(json.dumps({"answer": True}), flush=True)
    if behaviour.endswith("version"):
        sys.stdin.readline()
        print(json.dumps({"answer": 11}), flush=True)
    if behaviour.endswith("stuck"):
        answers = {
            "version": 12,
            "supported_cpuid": [],
            "msr_list": [],
            "feature_list": [],
            "get_msr": None,
            "xsave": "",
        }
        for line in sys.stdin:
            name = json.loads(line)[0]
            if name == "execute":
                break
            print(json.dumps({"answer": answers.get(name, name == "new_vm")}), flush=True)
    if not behaviour.endswith("dies"):
        time.sleep(120)


if __name__ == "__main__":
    main(sys.argv[1])

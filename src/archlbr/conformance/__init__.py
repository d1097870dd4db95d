"""The same questions of the model, of the machine and of a real KVM: cases as data, targets behind one protocol."""

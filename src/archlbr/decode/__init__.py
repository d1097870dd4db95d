"""The decode room: registers, component-15 images and CPUID leaves in words."""

"""Audio tools: functions of a clip with a small, typed, printable finding. Who uses them decides when."""

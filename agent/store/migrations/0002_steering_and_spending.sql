-- What is asked often, over all investigations: who interrupts, and what was paid since midnight.
CREATE INDEX messages_interrupt ON messages (investigation, number) WHERE kind = 'interrupt';
CREATE INDEX entries_paid ON entries (at) WHERE kind IN ('reply', 'summary', 'discarded', 'child');

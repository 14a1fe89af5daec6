// What travels between the server and the pages of a class; demo/page/classroom/routes.py describes it.

import type { Branch, Figure, Operation, ReplyData, Token, TurnData, Zones } from "../src/types";

export type PaneName = "a" | "b";

/** What the speaker has set. */
export interface Lesson {
  scenario: string;
  title: string;
  blurb: string;
  content_warning: string;
  script: string[];
  system_prompt: string;
  cap: boolean;
  seed: number;
  guess: boolean;
  /** Whether each student gets other seeds. */
  own_seeds: boolean;
}

export interface StateMessage {
  type: "state";
  class: string;
  student: number;
  /** 0 with a seat, else the place in the queue. */
  place: number;
  paused: boolean;
  lesson: Lesson;
  chat: string;
  turns: number;
  writing: boolean;
  ahead: number;
  problem: { number: number; text: string; message: string } | null;
  mirrored: boolean;
}

export interface PaneView {
  /** Only once the turn is revealed. */
  branch?: Branch;
  /** Only while the reply is written, or before the turn is revealed. */
  tokens?: Token[];
  mean?: number | null;
  zone?: string | null;
  fault?: string;
}

export interface TurnView {
  user: string;
  asks: boolean;
  ended: boolean;
  revealed: boolean;
  shown: "" | "asked" | "shown" | "refused";
  /** Of the speaker's conversation, from which the student goes on. */
  taken?: boolean;
  panes: Record<PaneName, PaneView>;
  same?: boolean;
  verdict?: "right" | "wrong" | null;
  scenario?: string;
  /** The turn as a session file holds it, once it has ended and is revealed. */
  data?: TurnData & { branches: Partial<Record<Branch, ReplyData>> };
}

export type PhoneMessage =
  | StateMessage
  | { type: "turn"; turn: number; view: TurnView }
  | { type: "tokens"; turn: number; panes: Partial<Record<PaneName, { tokens: Token[] }>> }
  | { type: "head"; head: SessionHead }
  | { type: "gone" };

/** The session file of a student without its turns. */
export interface SessionHead {
  model: string;
  marks: { floor: number | null; zones: Zones | null; assistant: boolean };
  [field: string]: unknown;
}

/** What a student's tab keeps. */
export interface StoredStudent {
  class: string;
  code: string;
  token: string;
  head: SessionHead;
  chat: string;
  turns: { data: TurnData; verdict: string; scenario: string; taken: boolean }[];
  /** The message whose replies have not been revealed. */
  draft: string;
}

export interface Pair {
  uncapped: number | null;
  capped: number | null;
  uncapped_zone: string | null;
  capped_zone: string | null;
  acted: number;
  same: boolean;
  guess: "right" | "wrong" | null;
  lift: number | null;
  /** Whether the capped reply had a cap. */
  cap: boolean;
}

export interface Row {
  student: number;
  chat: number;
  owner: string;
  pairs: Pair[];
}

export interface Exhibit {
  id: number;
  student: number;
  turn: number;
  shown: boolean;
  user?: string;
  uncapped?: string;
  capped?: string;
}

export interface BoardMessage {
  type: "board";
  id: string;
  code: string;
  lesson: Lesson;
  paused: boolean;
  room: number;
  students: { number: number; present: boolean; seated: boolean; writing: boolean }[];
  rows: Row[];
  guesses: { right: number; all: number };
  shown: Exhibit[];
}

export interface DoorMessage {
  type: "door";
  code: string;
  address: string;
  qr: string;
  figure: Figure;
  scenarios: { id: string; title: string; prompt: string; seed: number }[];
  model: string;
  /** Whether the page listens to other machines. */
  reachable: boolean;
}

/** What a speaker's tab keeps. */
export interface StoredClass {
  secret: string;
  /** The address under which the page is served, with a slash at its end. */
  base: string;
  board: Pick<BoardMessage, "id" | "code" | "lesson" | "paused" | "rows"> | null;
}

export interface MirrorMessage {
  type: "mirror";
  ops: Operation[];
  view: Record<string, string>;
}

// The input: 20,000 flights of 2001, one JSON message each, one stream per airport of origin.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";

// The package exports no data files, only its entry point, which lies beside them.
function dataFile(name) {
  const entry = createRequire(import.meta.url).resolve("vega-datasets");
  return join(dirname(entry), "..", "data", name);
}

/**
 * The first `limit` flights in the order of departure: `{ airport, message }`, where `message` is
 * the text that is sent. All texts differ, so one that is lost or repeated can be named.
 */
export function loadFlights(limit) {
  const flights = JSON.parse(readFileSync(dataFile("flights-20k.json"), "utf8"));
  // `2001/01/01 00:47` sorts as text; equal times keep the order of the file.
  flights.sort((a, b) => (a.date < b.date ? -1 : Number(a.date > b.date)));
  return flights
    .slice(0, limit)
    .map((flight) => ({ airport: flight.origin, message: JSON.stringify(flight) }));
}

/** The messages of each airport in order, the busiest airport first. */
export function byAirport(flights) {
  const groups = new Map();
  for (const { airport, message } of flights) {
    if (!groups.has(airport)) groups.set(airport, []);
    groups.get(airport).push(message);
  }
  return new Map([...groups].sort(([, a], [, b]) => b.length - a.length));
}

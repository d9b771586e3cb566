/**
 * A probe of what the base model knew: pairs of sentences that say the same, written for this project, of no domain in
 * particular. Only their similarities before and after are compared; nothing is trained on them.
 */
export const PROBE_PAIRS: readonly (readonly [string, string])[] = [
  ["The ferry leaves the island at seven in the morning.", "Boats depart from the isle at 7 a.m."],
  ["She repaired the bicycle with a borrowed wrench.", "Using someone else's spanner, she fixed her bike."],
  [
    "Heavy rain closed the mountain road for two days.",
    "For two days nobody could drive over the pass because of storms.",
  ],
  [
    "The museum is free on the first Sunday of the month.",
    "On every month's first Sunday, visitors pay nothing at the museum.",
  ],
  ["Bread dough needs time to rise before baking.", "Let the dough rest and grow before it goes into the oven."],
  ["He forgot the password of his old mail account.", "The login of his former e-mail address slipped his mind."],
  ["The orchestra tuned their instruments on stage.", "Musicians adjusted their instruments in front of the audience."],
  ["Our cat sleeps on the warm radiator all winter.", "In the cold months the cat naps on the heater."],
  ["The company cut two hundred jobs in March.", "Two hundred employees were laid off by the firm that spring."],
  ["Water boils at a lower temperature in the mountains.", "At high altitude, water needs less heat to boil."],
  ["The witness refused to answer the lawyer's question.", "Asked by counsel, the person testifying would not reply."],
  [
    "A vaccine trains the immune system to recognise a virus.",
    "Immunisation teaches the body's defences what a virus looks like.",
  ],
  ["The train was delayed because of a broken signal.", "A signal failure made the train late."],
  ["They planted olive trees on the southern slope.", "The hillside facing south was planted with olives."],
  ["The bank raised interest rates on savings.", "Savers now earn more interest at the bank."],
  ["My sister teaches chemistry at a secondary school.", "A high school employs my sister as a chemistry teacher."],
  ["The bridge was painted red in the nineteen-thirties.", "In the 1930s the bridge got its red paint."],
  ["You can return the shoes within thirty days.", "Shoes may be brought back up to a month after purchase."],
  ["The moon was hidden behind thick clouds.", "Dense clouds covered the moon."],
  ["A short circuit started the fire in the kitchen.", "The kitchen burned because of an electrical fault."],
  [
    "The novel tells the story of three generations of fishermen.",
    "It is a book about a fishing family over three generations.",
  ],
  ["Turn left after the church and walk up the hill.", "Past the church, go left and climb the slope."],
  [
    "The software update deleted some of my photographs.",
    "After updating the program, several of my pictures were gone.",
  ],
  ["Children under six travel free of charge.", "No ticket is needed for kids younger than six."],
  ["The river froze for the first time in twenty years.", "It had been two decades since ice last covered the river."],
  ["The doctor advised him to drink less coffee.", "His physician told him to cut down on caffeine."],
  ["The committee will vote on the proposal tomorrow.", "Tomorrow the motion is put to a vote in the committee."],
  ["She won the race by a few centimetres.", "A tiny margin decided the race in her favour."],
  ["The library lends tools as well as books.", "Besides books, tools can be borrowed from the library."],
  ["Bees find their way back by the position of the sun.", "The sun's place in the sky guides bees home."],
  ["The recipe asks for two eggs and a cup of sugar.", "You need a cup of sugar and two eggs for this dish."],
  ["An old map showed a path that no longer exists.", "The trail on the historic map has disappeared."],
  ["The tenant must give three months' notice.", "A renter has to announce moving out three months ahead."],
  ["The printer is out of paper again.", "Once more there are no sheets left in the printer."],
  ["Wind turbines were built along the coast.", "The shoreline is lined with wind power plants."],
  [
    "The violin was made in Italy three centuries ago.",
    "Italian hands built this violin about three hundred years back.",
  ],
];
